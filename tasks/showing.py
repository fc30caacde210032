"""One user as a page: weights, answers, responses chosen. It reads a warehouse, writes none."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pref_model.types import Floats
from tasks._sources import ancestry, origin
from tasks._user_page import render_user
from tasks.errors import InputRejected
from tasks.types import StagePlan
from warehouse.errors import DatasetMissing
from warehouse.manifest import Manifest
from warehouse.store import Warehouse

N_ANSWERS_SHOWN = 20
N_EXAMPLES = 3
# Normal quantile of a 95 % interval.
QUANTILE = 1.959964
N_NAMED = 4

__all__ = ["Answer", "Example", "User", "Weight", "render_user", "user_facts"]


class Weight(NamedTuple):
    """A user's weight on one base reward, with its 95 % interval."""

    base_reward: int
    label: str | None
    explained_share: float | None
    weight: float
    low: float
    high: float


class Answer(NamedTuple):
    """One answer: ``answer_prob`` is that of the response shown as ``preferred``, at least 1/2."""

    place: int
    prompt: str
    preferred: str
    other: str
    answer_prob: float


class Example(NamedTuple):
    """The base response to one prompt, and the one chosen for the user.

    ``win`` is the user's own judge's verdict over both orders: 1, 1/2, 0; None without one.
    """

    prompt: str
    base: str
    personalized: str
    win: float | None


class User(NamedTuple):
    """All that is shown of one user.

    Attributes:
        persona_id: The user.
        kind: Family of users.
        profile: Profile text, or None.
        is_seen: Whether training saw the user.
        n_answers: Answers that the weights rest on.
        weights: One a base reward, in order.
        answers: What they answered, the first of them.
        examples: Up to three prompts; empty with the reason in ``notes``.
        notes: Lines on what cannot be shown.
        is_simulated: Whether a simulated judge answered for the user.
        versions: Dataset -> version that this was read from.
    """

    persona_id: str
    kind: str
    profile: str | None
    is_seen: bool
    n_answers: int
    weights: list[Weight]
    answers: list[Answer]
    examples: list[Example]
    notes: list[str]
    is_simulated: bool
    versions: dict[str, str]


class _Known(NamedTuple):
    """A user's weights and what they rest on: pairs (ids), answers, features (K, d), weights."""

    mean: Floats
    pairs: list[str]
    labels: Floats
    features: Floats
    counts: Floats
    prior: Any


def user_facts(warehouse: Warehouse, persona_id: str, n_answers: int | None = None) -> User:
    """Reads one user's page from the newest run that adapted users.

    A held-out user is shown after ``n_answers`` answers: by default as many as were known when
    responses were chosen, else the most there are. Intervals are Laplace's (eq 8): the inverse
    Hessian at the weights, with the prior that they were adapted with.

    Raises:
        DatasetMissing: No run has adapted users yet.
        InputRejected: No such user, or no weights after that many answers.
    """
    manifest = _adapted(warehouse)
    versions = {"adapted_weights": manifest.version, **manifest.parents}
    personas = warehouse.current()["personas"] if "personas" not in versions else None
    versions["personas"] = personas or versions["personas"]
    persona = _persona(warehouse, versions["personas"], persona_id)
    selections = _selections(warehouse, manifest)
    if selections is not None:
        versions["selections"] = selections.version
    seen = {
        row["entity_id"]: row["side"] == "seen"
        for row in warehouse.read("splits", versions["splits"]).to_pylist()
        if row["entity_kind"] == "persona"
    }
    if persona_id not in seen:
        raise InputRejected(
            f"persona {persona_id!r}: takes no part in training or measurement; expected a user"
            ' with answers on both sides of the split; see `pref sql "select * from splits"`'
        )
    is_seen = seen[persona_id]
    if not is_seen:
        n_answers = _wanted(warehouse, manifest, selections, persona_id, n_answers)
    known = _known(warehouse, manifest, persona_id, is_seen=is_seen, n_answers=n_answers)
    facts = _about_base_rewards(warehouse, versions)
    examples, notes = _examples(warehouse, selections, persona_id, n_answers, is_seen=is_seen)
    if not facts:
        notes.append("base rewards have no labels: this flow, or this run, asked nobody for them")
    return User(
        persona_id=persona_id,
        kind=persona["persona_kind"],
        profile=persona["profile_text"],
        is_seen=is_seen,
        n_answers=len(known.pairs),
        weights=_weights(known, facts),
        answers=_answers(warehouse, versions, known),
        examples=examples,
        notes=notes,
        is_simulated=_is_simulated(warehouse, manifest),
        versions=dict(sorted(versions.items())),
    )


def _adapted(warehouse: Warehouse) -> Manifest:
    version = warehouse.current().get("adapted_weights")
    if version is None:
        raise DatasetMissing(
            f"dataset adapted_weights: none yet in warehouse {warehouse.root}; expected one of a"
            " run that trained and adapted users; make it with `pref run`"
        )
    return warehouse.manifest("adapted_weights", version)


def _persona(warehouse: Warehouse, version: str, persona_id: str) -> dict[str, Any]:
    rows = {row["persona_id"]: row for row in warehouse.read("personas", version).to_pylist()}
    if persona_id not in rows:
        some = ", ".join(sorted(rows)[:N_NAMED])
        raise InputRejected(
            f"persona {persona_id!r}: not among the {len(rows):,} of warehouse {warehouse.root};"
            f" expected one such as {some}; list them with"
            ' `pref sql "select persona_id from personas"`'
        )
    return dict(rows[persona_id])


def _selections(warehouse: Warehouse, adapted: Manifest) -> Manifest | None:
    """The choices made with these very weights; None if there are none."""
    version = warehouse.current().get("selections")
    if version is None:
        return None
    found = warehouse.manifest("selections", version)
    return found if found.parents.get("adapted_weights") == adapted.version else None


def _wanted(
    warehouse: Warehouse,
    adapted: Manifest,
    selections: Manifest | None,
    persona_id: str,
    n_answers: int | None,
) -> int:
    rows = warehouse.read("adapted_weights", adapted.version, ["persona_id", "method", "n_answers"])
    there = sorted(
        row["n_answers"]
        for row in rows.to_pylist()
        if row["persona_id"] == persona_id and row["method"] == "pref"
    )
    chosen_with = None if selections is None else int(selections.config["n_answers"])
    if n_answers is None and chosen_with in there:
        return int(chosen_with or 0)
    if not there or (n_answers is not None and n_answers not in there):
        raise InputRejected(
            f"persona {persona_id!r}: no weights after {n_answers} answers; expected one of"
            f" {', '.join(map(str, there)) or 'none'}; pass another --answers"
        )
    return there[-1] if n_answers is None else n_answers


def _known(
    warehouse: Warehouse,
    adapted: Manifest,
    persona_id: str,
    *,
    is_seen: bool,
    n_answers: int | None,
) -> _Known:
    from pref_model.adapt import UserPrior, training_prior
    from pref_model.checkpoint import load_model
    from tasks._stages.own_adapt import PRIOR_FILE
    from tasks._stages.own_world import load_own_world
    from tasks._stages.stage import Inputs
    from tasks._stages.worlds import load_world

    plan = StagePlan(
        stage=adapted.stage,
        warehouse=str(warehouse.root),
        version=adapted.version,
        version_sha256=adapted.version,
        code_sha256=adapted.code_sha256,
        config=dict(adapted.config),
        parents=dict(adapted.parents),
    )
    inputs = Inputs(warehouse, plan)
    model = load_model(inputs.folder("models"), "pref")
    fitted_with: UserPrior
    if adapted.stage == "adapt_own":
        own = load_own_world(inputs)
        features, pairs, ids = model.pair_features(own.differences), own.pairs, own.personas
        train = own.part("train")
        kept = json.loads(
            warehouse.file_path("adapted_weights", adapted.version, PRIOR_FILE).read_text("utf-8")
        )
        prior = UserPrior(np.array(kept["mean"]), np.array(kept["covariance"]))
        fitted_with = prior
        cell_weight = {
            (int(user), int(pair)): float(weight)
            for user, pair, _, weight in zip(*own.cells, strict=True)
        }
    else:
        world = load_world(inputs)
        features, pairs, ids = model.pair_features(world.differences), world.pairs, world.personas
        train, cell_weight = world.part("train"), {}
        # Users seen in training were fitted with the ridge of eq 5.
        fitted_with = UserPrior.ridge(model.d, model.config.user_l2)
        prior = (
            fitted_with
            if adapted.config["prior"] == "ridge"
            else training_prior(features, train, world.n_seen_users, model.config.user_l2)
        )
    row = ids.index(persona_id)
    if is_seen:
        mine = train.user == row
        chosen: NDArray[np.int64] = train.pair[mine]
        # One stage writes models and user weights, so they share a version.
        table = warehouse.read("user_weights", adapted.parents["models"])
        return _Known(
            _vector(table.to_pylist(), persona_id),
            [pairs[one] for one in chosen],
            train.label[mine],
            features[chosen],
            train.weight[mine],
            fitted_with,
        )
    rows = warehouse.read("adapted_weights", adapted.version).to_pylist()
    mean = _vector(
        [one for one in rows if one["method"] == "pref" and one["n_answers"] == n_answers],
        persona_id,
    )
    asked = [
        one
        for one in warehouse.read("questions", adapted.version).to_pylist()
        if one["persona_id"] == persona_id and one["step"] <= (n_answers or 0)
    ]
    asked.sort(key=lambda one: one["step"])
    place = {pair: index for index, pair in enumerate(pairs)}
    chosen = np.array([place[one["pair_id"]] for one in asked], np.int64)
    return _Known(
        mean,
        [one["pair_id"] for one in asked],
        np.array([one["answer_prob"] for one in asked]),
        features[chosen],
        np.array([cell_weight.get((row, int(one)), 1.0) for one in chosen]),
        prior,
    )


def _vector(rows: list[dict[str, Any]], persona_id: str) -> Floats:
    return np.array(next(one["weights"] for one in rows if one["persona_id"] == persona_id))


def _weights(known: _Known, facts: dict[int, dict[str, Any]]) -> list[Weight]:
    from pref_model.adapt import covariance_at

    covariance = covariance_at(known.features, known.counts, known.mean, known.prior)
    half = QUANTILE * np.sqrt(np.diag(covariance))
    return [
        Weight(
            number,
            facts.get(number, {}).get("label"),
            facts.get(number, {}).get("explained_share"),
            float(weight),
            float(weight - spread),
            float(weight + spread),
        )
        for number, (weight, spread) in enumerate(zip(known.mean, half, strict=True), start=1)
    ]


def _about_base_rewards(
    warehouse: Warehouse, versions: dict[str, str]
) -> dict[int, dict[str, Any]]:
    """Label and explained share by number, if they are of the model that the weights belong to."""
    current = warehouse.current()
    if "base_reward_facts" not in current:
        return {}
    facts = warehouse.manifest("base_reward_facts", current["base_reward_facts"])
    # One stage writes models and base rewards, so they share a version.
    if facts.parents.get("base_rewards") != versions["models"]:
        return {}
    versions["base_reward_facts"] = facts.version
    found = {
        row["base_reward"]: {"explained_share": row["explained_share"]}
        for row in warehouse.read("base_reward_facts", facts.version).to_pylist()
    }
    if "base_reward_labels" in current:
        labels = warehouse.manifest("base_reward_labels", current["base_reward_labels"])
        if labels.parents.get("base_reward_examples") == facts.version:
            versions["base_reward_labels"] = labels.version
            for row in warehouse.read("base_reward_labels", labels.version).to_pylist():
                found[row["base_reward"]]["label"] = row["label"]
    return found


def _answers(warehouse: Warehouse, versions: dict[str, str], known: _Known) -> list[Answer]:
    pairs = {row["pair_id"]: row for row in _rows(warehouse, versions, "pairs")}
    parents = warehouse.manifest("pairs", versions["pairs"]).parents
    texts = {
        name: versions.get(name) or parents.get(name) or versions["pairs"]
        for name in ("prompts", "responses")
    }
    prompt = {r["prompt_id"]: r["prompt_text"] for r in _rows(warehouse, texts, "prompts")}
    text = {r["response_id"]: r["response_text"] for r in _rows(warehouse, texts, "responses")}
    found = []
    for place, (pair_id, label) in enumerate(
        zip(known.pairs[:N_ANSWERS_SHOWN], known.labels, strict=False), start=1
    ):
        pair = pairs[pair_id]
        both = [text[pair["response_a_id"]] or "", text[pair["response_b_id"]] or ""]
        if label < 0.5:
            both.reverse()
        first, second = both
        probability = float(max(label, 1 - label))
        found.append(Answer(place, prompt[pair["prompt_id"]], first, second, probability))
    return found


def _rows(warehouse: Warehouse, versions: dict[str, str], name: str) -> list[dict[str, Any]]:
    return list(warehouse.read(name, versions[name]).to_pylist())


def _examples(
    warehouse: Warehouse,
    selections: Manifest | None,
    persona_id: str,
    n_answers: int | None,
    *,
    is_seen: bool,
) -> tuple[list[Example], list[str]]:
    if is_seen:
        return [], [
            "no personalized responses: responses are chosen for held-out users, and training"
            f" saw {persona_id}"
        ]
    if selections is None:
        return [], ["no personalized responses: no run on this warehouse has chosen any yet"]
    from tasks._stages.win_rates import win_values

    chosen = warehouse.read("selections", selections.version)
    there = sorted(set(chosen["n_answers"].to_pylist()))
    if n_answers not in there:
        return [], [
            f"no personalized responses after {n_answers} answers: they were chosen after"
            f" {', '.join(map(str, there))}"
        ]
    values: dict[tuple[str, str], float | None] = {}
    judged = warehouse.current().get("win_judgments")
    if judged is not None:
        parents = warehouse.manifest("win_judgments", judged).parents
        if parents.get("selections") == selections.version:
            table = win_values(chosen, warehouse.read("win_judgments", judged))
            values = {
                (row["prompt_id"], row["response_id"]): row["win"]
                for row in table.to_pylist()
                if row["persona_id"] == persona_id
            }
    pool = selections.parents["pool_responses"]
    text = {
        row["response_id"]: row["response_text"]
        for row in warehouse.read("pool_responses", pool).to_pylist()
    }
    prompts = warehouse.manifest("pool_responses", pool).parents["prompts"]
    prompt = {
        row["prompt_id"]: row["prompt_text"]
        for row in warehouse.read("prompts", prompts).to_pylist()
    }
    mine = [
        row
        for row in chosen.to_pylist()
        if row["persona_id"] == persona_id
        and row["method"] == "pref"
        and row["n_answers"] == n_answers
        and row["response_id"] != row["base_response_id"]
    ]
    mine.sort(key=lambda row: row["prompt_id"])
    found = [
        Example(
            prompt[row["prompt_id"]],
            text[row["base_response_id"]] or "",
            text[row["response_id"]] or "",
            values.get((row["prompt_id"], row["response_id"])),
        )
        for row in mine[:N_EXAMPLES]
    ]
    return found, [] if found else [f"no personalized responses were chosen for {persona_id}"]


def _is_simulated(warehouse: Warehouse, adapted: Manifest) -> bool:
    ancestors = ancestry(warehouse, {"adapted_weights": adapted.version})
    return origin(ancestors, warehouse.runs(), None).is_simulated
