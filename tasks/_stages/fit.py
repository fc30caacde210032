"""Base rewards and user weights from the train part; classic RLHF beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks._convert import vector_column, vectors
from tasks._stages.align import align_to_earlier, settle
from tasks._stages.encode import encoder_of
from tasks._stages.stage import Inputs, Output, Stage
from tasks._stages.worlds import load_world
from warehouse.tables import TABLES

if TYPE_CHECKING:
    from pref_model.model import RewardModel


def build(inputs: Inputs) -> dict[str, Output]:
    """Fits both models; the validation part (seen users, new pairs) chooses and stops.

    The base rewards come in their canonical basis, or in that of the model they are aligned to.
    """
    from pref_model.baselines import fit_classic
    from pref_model.basis import canonicalize
    from pref_model.fit import fit_reward_model
    from pref_model.model import FitConfig, RunConfig

    config = {name: value for name, value in inputs.config.items() if name != "weights"}
    run = RunConfig(device="cpu", seed=config.pop("seed"))
    encoder_id = encoder_of(inputs, config.pop("encoder_id"))
    settings = FitConfig(**{**config, "head_l2": tuple(config["head_l2"])})
    world = load_world(inputs)
    # Held-out users are no rows of the model: the fit sees users [0, n_seen) only.
    seen = world.n_seen_users
    parts = world.part("train"), world.part("validation")
    with one_thread():
        models = {
            "pref": fit_reward_model(world.differences, parts[0], seen, settings, run, parts[1]),
            "classic": fit_classic(world.differences, parts[0], seen, settings, run, parts[1]),
        }
    models["pref"] = canonicalize(models["pref"], world.differences[: world.n_seen_pairs])
    aligned = align_to_earlier(inputs, world, models["pref"], encoder_id)
    if aligned is not None:
        models["pref"] = aligned.model
    embedded = inputs.read("embeddings")
    return {
        **model_outputs(
            embedded["response_id"].to_pylist(),
            vectors(embedded["embedding"]),
            models,
            encoder_id,
            world.personas[:seen],
        ),
        "alignment": Output(
            pa.Table.from_pylist([aligned.row] if aligned else [], TABLES["alignment"].schema)
        ),
    }


def model_outputs(
    responses: list[str],
    embeddings: NDArray[np.float64],
    models: Mapping[str, RewardModel],
    encoder_id: str,
    personas: list[str],
) -> dict[str, Output]:
    """``models`` with their files, and what ``pref`` makes of every response and training user."""
    from pref_model.checkpoint import save_model, tensors_file

    rows: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for method, model in models.items():
        saved = save_model(model, method)
        files |= saved
        tensors = tensors_file(method)
        rows.append(
            {
                "method": method,
                "n_base_rewards": model.d,
                "embedding_width": model.head.shape[1],
                "encoder": encoder_id,
                "file_name": tensors,
                "file_sha256": hashlib.sha256(saved[tensors]).hexdigest(),
            }
        )
    features = models["pref"].response_features(embeddings)
    base_rewards = pa.table(
        {
            "response_id": responses,
            "base_rewards": vector_column(features.astype(np.float32), pa.float32()),
        },
        TABLES["base_rewards"].schema,
    )
    user_weights = pa.table(
        {
            "persona_id": personas,
            "weights": vector_column(models["pref"].user_weights, pa.float32()),
        },
        TABLES["user_weights"].schema,
    )
    by_method = sorted(rows, key=lambda row: str(row["method"]))
    return {
        "models": Output(pa.Table.from_pylist(by_method, TABLES["models"].schema), files),
        "base_rewards": Output(base_rewards),
        "user_weights": Output(user_weights),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: sums in one order on every machine, and no waiting for a busy core.

    The tensors are small; a second thread brought nothing on an idle machine and cost a factor
    of fifteen on a loaded one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


STAGE = Stage(
    name="fit",
    reads=("pairs", "preferences", "splits", "embeddings"),
    writes=("models", "base_rewards", "user_weights", "alignment"),
    module=__name__,
    build=build,
    settle=settle,
)
