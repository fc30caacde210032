"""A retrain in the basis of an earlier model, so that user weights stored with it stay usable.

It finds the earlier model and the map; it trains nothing and chooses no model of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pref_model.model import RewardModel
from tasks._convert import index_of, vectors
from tasks._stages.stage import Inputs
from tasks._stages.worlds import World
from tasks.errors import InputRejected
from warehouse.store import Warehouse

# What a fit writes and an alignment reads again, all of one version.
EARLIER = ("models", "base_rewards", "user_weights")
PREVIOUS = ("previous", "current")


class Aligned(NamedTuple):
    """The model in the earlier basis, and how well that went: a row of ``alignment``."""

    model: RewardModel
    row: dict[str, Any]


class _Shared(NamedTuple):
    """Pairs that both models score.

    Attributes:
        pairs: (S,) their rows in the world of the retrain.
        old: (S, d) pair features by the earlier model.
    """

    pairs: NDArray[np.int64]
    old: NDArray[np.float64]


def settle(
    warehouse: Warehouse, config: dict[str, Any], parents: dict[str, str], code_sha256: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Turns ``align_to`` into parents, so that a version names the very model it is aligned to.

    "previous" (or "current") is the warehouse's current model, or the one that was previous when
    this very fit was made before: the same command finds the same version again. Where there is
    no model yet it starts a basis of its own, so that a schedule needs no special first run.

    Args:
        warehouse: Where earlier models lie.
        config: The fit's configuration.
        parents: Its parents.
        code_sha256: Its code.

    Returns:
        Configuration without ``align_to``, and parents with the earlier model's datasets.

    Raises:
        DatasetMissing: No models of that version.
    """
    config = dict(config)
    wanted = config.pop("align_to", None)
    if wanted is None:
        return config, parents
    if wanted in PREVIOUS:
        version = _previous(warehouse, config, parents, code_sha256)
    else:
        version = warehouse.manifest("models", wanted).version
    if version is None:
        return config, parents
    return config, {**parents, **dict.fromkeys(EARLIER, version)}


def _previous(
    warehouse: Warehouse, config: dict[str, Any], parents: dict[str, str], code_sha256: str
) -> str | None:
    current = warehouse.current().get("models")
    if current is None:
        return None
    made = warehouse.manifest("models", current)
    plain = {name: version for name, version in made.parents.items() if name not in EARLIER}
    if (made.code_sha256, dict(made.config), plain) == (code_sha256, config, parents):
        return made.parents.get("models")
    return current


def align_to_earlier(
    inputs: Inputs, world: World, model: RewardModel, encoder_id: str
) -> Aligned | None:
    """Maps a retrain onto the earlier model among the parents; None where there is none.

    With the same encoder the earlier model scores all pairs of the retrain. With another one,
    only pairs of texts that it scored then are shared. The map is fitted on pairs seen in
    training and checked on held-out pairs, with the weights that were stored with the earlier
    model (`pref_model.basis.align`).

    Raises:
        InputRejected: Another number of base rewards, or too few pairs that both models score.
    """
    from pref_model.basis import align
    from pref_model.checkpoint import load_model
    from pref_model.errors import BadArray

    version = inputs.plan.parents.get("models")
    if version is None:
        return None
    earlier = load_model(inputs.folder("models"), "pref")
    if earlier.d != model.d:
        raise InputRejected(
            f"fit.align_to: models {version} have {earlier.d} base rewards, this fit has"
            f" {model.d}; expected as many; set fit.d={earlier.d} or align to another model"
        )
    rows = inputs.read("models").to_pylist()
    has_same_encoder = next(row["encoder"] for row in rows if row["method"] == "pref") == encoder_id
    shared = (
        _Shared(np.arange(len(world.pairs)), earlier.pair_features(world.differences))
        if has_same_encoder
        else _shared_texts(inputs, world)
    )
    is_held_out = shared.pairs >= world.n_seen_pairs
    wanted = 2 * model.d
    if len(shared.pairs) - is_held_out.sum() < wanted:
        raise InputRejected(
            f"fit.align_to: models {version} scored {len(shared.pairs)} of the"
            f" {len(world.pairs)} pairs of this run, {is_held_out.sum()} of them held out;"
            f" expected {wanted} pairs to fit on; align to a model of the same encoder, or of"
            " the same responses, or start a new basis without fit.align_to"
        )
    stored = inputs.read("user_weights")
    try:
        found = align(
            model,
            shared.old,
            model.pair_features(world.differences[shared.pairs]),
            vectors(stored["weights"]),
            held_out=is_held_out if is_held_out.any() else None,
        )
    except BadArray as error:
        raise InputRejected(f"fit.align_to: models {version}: {error}") from error
    return Aligned(
        found.model,
        {
            "aligned_to_version": version,
            "is_same_encoder": has_same_encoder,
            "n_shared_pairs": len(shared.pairs),
            "n_users": stored.num_rows,
            "alignment_error_share": found.error,
            "changed_users_share": found.ranking.users_share,
            "changed_cells_share": found.ranking.pairs_share,
            "order_tau": _finite(found.ranking.order_tau),
        },
    )


def _shared_texts(inputs: Inputs, world: World) -> _Shared:
    """Pairs whose prompt and both responses the earlier model scored, by their texts.

    Ids are no help: the same id is given to another text once a template changes.
    """
    warehouse = inputs.warehouse
    fitted = warehouse.manifest("models", inputs.plan.parents["models"])
    embedded = warehouse.manifest("embeddings", fitted.parents["embeddings"])
    then = _texts(inputs, embedded.parents["prompts"], embedded.parents["responses"])
    rewards = inputs.read("base_rewards")
    place = index_of(rewards["response_id"].to_pylist())
    scored = {text: place[one] for one, text in then.items() if one in place}
    ours = warehouse.manifest("embeddings", inputs.plan.parents["embeddings"])
    now = _texts(inputs, ours.parents["prompts"], ours.parents["responses"])
    sides = {
        row["pair_id"]: (row["response_a_id"], row["response_b_id"])
        for row in inputs.read("pairs").to_pylist()
    }
    kept, first, second = [], [], []
    for row, pair in enumerate(world.pairs):
        a, b = (scored.get(now[one]) for one in sides[pair])
        if a is not None and b is not None:
            kept.append(row)
            first.append(a)
            second.append(b)
    features = vectors(rewards["base_rewards"])
    return _Shared(np.array(kept, np.int64), features[first] - features[second])


def _texts(inputs: Inputs, prompts: str, responses: str) -> dict[str, tuple[str, str]]:
    """Prompt text and response text of every response, by id."""
    read = inputs.warehouse.read
    asked = read("prompts", prompts, ["prompt_id", "prompt_text"]).to_pylist()
    prompt = {row["prompt_id"]: row["prompt_text"] for row in asked}
    columns = ["response_id", "prompt_id", "response_text"]
    return {
        row["response_id"]: (prompt[row["prompt_id"]], row["response_text"])
        for row in read("responses", responses, columns).to_pylist()
        if row["response_text"] is not None
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
