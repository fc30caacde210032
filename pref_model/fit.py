"""Base rewards and user weights by maximum likelihood (Algorithm 1, eq 5), through Accelerate.

The encoder is frozen: this module sees pair differences, never text. It writes no file.
"""

import numpy as np
import torch

from pref_model.distill import distill
from pref_model.errors import BadArray, BadSetting
from pref_model.model import FitConfig, FitPoint, RewardModel, RunConfig
from pref_model.svd import svd_start
from pref_model.threads import one_blas_thread
from pref_model.train_head import (
    Factorization,
    HeadCheckpoint,
    Start,
    accelerator_for,
    train_head,
)
from pref_model.train_state import Checkpoints, State, cpu_threads, fingerprint, load_state
from pref_model.types import Floats, Preferences, finite_matrix, make_preferences


@one_blas_thread()
def fit_reward_model(
    pair_differences: Floats,
    preferences: Preferences,
    n_users: int,
    config: FitConfig,
    run: RunConfig,
    validation: Preferences | None = None,
    checkpoints: Checkpoints | None = None,
    *,
    text_columns: int = 0,
) -> RewardModel:
    """Fit base rewards and training users' weights: SVD start, ridge head, then eq 5.

    1. `svd_start` factors the answers (Algorithm 1, step 1).
    2. `distill` fits the head to the SVD's pair features by ridge regression.
    3. AdamW maximizes sum w [A log s(f) + (1 - A) log s(-f)] - (beta/2) |Lambda|^2
       - (gamma/2) |W|^2 over W and Lambda, gamma from `config.head_l2`; the step and the gamma
       with the best validation likelihood are kept.

    Args:
        pair_differences: (M, D) embeddings, first - second, of every pair that is referred to.
        preferences: Training cells (seen users, seen pairs).
        n_users: U training users.
        config: What to fit.
        run: Where to run, and the seed.
        validation: Cells of the same users on other pairs; None fits all steps.
        checkpoints: Where to save unfinished work; a state of the same fit found there is gone
            on from, to the same bits as without the interruption.
        text_columns: See `prepare_features`.

    Returns:
        `RewardModel`; equal inputs give equal bits on one CPU thread count. Under `accelerate
        launch` each step's pairs are dealt out to the processes, so that `batch_pairs` is the
        global batch and the model is that of one process, up to the order of float32 sums.

    Raises:
        BadArray: Shapes or indices disagree, or no training cell.
        CheckpointCorrupt: The folder holds another fit's state.
        FitFailed: The likelihood became nan.

    Departures: the prior on the head is ours (with M < D the likelihood alone is unbounded); it
    enters the loss, as does the prior on the users, so the gradient is that of the stated
    objective and AdamW's decoupled decay is off.
    """
    if config.start == "features":
        raise BadSetting(
            "fit: found start='features', expected a start for a joint fit; use"
            " `unshared.fit_unshared`, which makes none"
        )
    scaled, scale, train, check = prepare_features(
        pair_differences, preferences, n_users, validation, config.ties, text_columns
    )
    start = _start(scaled, train, n_users, config, run.seed)
    return fit_from_start(
        scaled,
        scale,
        train,
        check,
        start,
        config,
        run,
        is_user_learned=True,
        checkpoints=checkpoints,
    )


def prepare_features(
    pair_differences: Floats,
    preferences: Preferences,
    n_users: int,
    validation: Preferences | None,
    ties: str,
    text_columns: int = 0,
) -> tuple[Floats, Floats, Preferences, Preferences | None]:
    """Check inputs and scale features by the training pairs alone.

    Args:
        pair_differences: (M, D).
        preferences: Training cells.
        n_users: U.
        validation: Validation cells, or None.
        ties: "half" or "drop".
        text_columns: How many of the last columns are features of their own kind (form beside
            an embedding): as a block they are scaled to mean squared length 1 like the rest as
            a block, or a few of them would weigh nothing beside hundreds.

    Returns:
        (M, D) scaled differences, whose training rows have mean squared length 1 a block; the (D,)
        scale; training cells; validation cells. There is no centering: differences have no
        preferred sign.
    """
    differences = finite_matrix(pair_differences, "pair differences")
    n_pairs = len(differences)
    train = make_preferences(*preferences, n_users=n_users, n_pairs=n_pairs)
    check = None
    if validation is not None:
        check = kept_cells(make_preferences(*validation, n_users=n_users, n_pairs=n_pairs), ties)
        check = check if check.user.size else None
    train = kept_cells(train, ties)
    if train.user.size == 0:
        raise BadArray("fit: found no training preference, expected at least one; judge first")
    used = differences[np.unique(train.pair)]
    root_mean_square = np.sqrt(np.einsum("md,md->d", used, used) / len(used))
    # A feature that never differs in training says nothing: scale 1 keeps its head at zero.
    silent = root_mean_square <= 1e-6 * max(float(root_mean_square.max(initial=0.0)), 1e-30)
    width = differences.shape[1]
    if not 0 <= text_columns < width:
        raise BadArray(
            f"fit: found {text_columns} text columns of {width}, expected fewer than all"
        )
    block = np.full(width, float(width - text_columns))
    block[width - text_columns :] = text_columns
    scale = np.where(silent, 1.0, root_mean_square) * np.sqrt(block)
    scale = scale.astype(np.float32).astype(np.float64)  # as stored: a reload changes nothing
    scaled = differences / scale
    scaled[:, silent] = 0.0
    return scaled, scale, train, check


def fit_from_start(
    scaled: Floats,
    scale: Floats,
    train: Preferences,
    check: Preferences | None,
    start: Start,
    config: FitConfig,
    run: RunConfig,
    *,
    is_user_learned: bool,
    checkpoints: Checkpoints | None = None,
) -> RewardModel:
    """Run the gradient fit for each head strength and keep the best on validation.

    With `is_user_learned=False` the user weights stay as given (classic RLHF: ones).
    """
    # A resumed fit gets its start in this layout, and sums in another one round otherwise.
    start = Start(*(np.ascontiguousarray(part) for part in start))
    middle = config.head_l2[len(config.head_l2) // 2]
    strengths = (middle,) if check is None else config.head_l2
    best: tuple[float, Start, tuple[FitPoint, ...], float] | None = None
    first, state, fit_id = 0, None, ""
    if checkpoints is not None:
        fit_id = _fit_id(scaled, train, check, config, run, is_user_learned)
        state = load_state(checkpoints.folder, fit_id)
        accelerator_for(run.device).wait_for_everyone()  # before anyone replaces what others read
    if state is not None:
        start = Start(state.tensors["start/head"].numpy(), state.tensors["start/users"].numpy())
        first, best = state.facts["strength"], _unpack_best(state)
    for number, head_l2 in enumerate(strengths[first:], first):
        begin = _balanced(start, config.user_l2, head_l2) if is_user_learned else start
        checkpoint = None
        if checkpoints is not None:
            checkpoint = HeadCheckpoint(
                checkpoints.folder,
                checkpoints.every,
                number * (config.steps + 1),
                state,
                {
                    "start/head": torch.as_tensor(start.head),
                    "start/users": torch.as_tensor(start.user_weights),
                    **_best_tensors(best),
                },
                {"fingerprint": fit_id, "strength": number, "kept": _best_facts(best)},
            )
        # The matrices are small: more threads would only make the last bit a matter of load.
        with cpu_threads(1):
            kept, history, loss = train_head(
                scaled, train, check, begin, head_l2, config, run, is_user_learned, checkpoint
            )
        state = None
        if best is None or loss < best[0]:
            best = (loss, kept, history, head_l2)
    if best is None:
        raise BadSetting("fit: found no head_l2, expected at least one strength")
    _, kept, history, head_l2 = best
    return RewardModel(
        head=kept.head.astype(np.float32),
        feature_mean=np.zeros(scale.size, dtype=np.float32),
        feature_scale=scale.astype(np.float32),
        user_weights=kept.user_weights.astype(np.float32),
        config=config,
        head_l2=float(head_l2),
        history=history,
    )


def _start(scaled: Floats, train: Preferences, n_users: int, config: FitConfig, seed: int) -> Start:
    width = scaled.shape[1]
    if config.start == "random":
        rng = np.random.default_rng([seed, config.d, width])
        return Start(
            rng.standard_normal((config.d, width)) * 0.1,
            rng.standard_normal((n_users, config.d)) * 0.1,
        )
    seen = np.unique(train.pair)
    compact = train._replace(pair=np.searchsorted(seen, train.pair).astype(np.int64))
    factors = svd_start(
        compact, n_users, seen.size, config.d, center=config.start == "svd", seed=seed
    )
    counts = np.bincount(compact.pair, weights=compact.weight, minlength=seen.size)
    fitted = distill(scaled[seen], factors.pair_features, weights=np.maximum(counts, 1e-9))
    return Start(fitted.head, factors.user_weights)


def _balanced(start: Start, user_l2: float, head_l2: float) -> Start:
    """Split each component's scale between its two factors as the two priors would.

    Multiplying lambda_k by c and row k of W by 1/c leaves the likelihood alone; the penalty is
    least at c^4 = gamma |W_k|^2 / (beta |lambda_k|^2).
    """
    head_size = max(head_l2, 1e-6) * np.sum(start.head**2, axis=1)
    user_size = max(user_l2, 1e-6) * np.sum(start.user_weights**2, axis=0)
    is_alive = (head_size > 0.0) & (user_size > 0.0)
    factor = np.where(is_alive, head_size, 1.0) / np.where(is_alive, user_size, 1.0)
    c = factor**0.25
    return Start(start.head / c[:, None], start.user_weights * c)


def _fit_id(
    scaled: Floats,
    train: Preferences,
    check: Preferences | None,
    config: FitConfig,
    run: RunConfig,
    is_user_learned: bool,
) -> str:
    arrays = {"scaled": scaled}
    for name, cells in (("train", train), ("check", check)):
        arrays |= {f"{name}/{part}": column for part, column in (cells or train)._asdict().items()}
    return fingerprint((config, run.seed, is_user_learned, check is None), arrays)


def _best_tensors(
    best: tuple[float, Start, tuple[FitPoint, ...], float] | None,
) -> dict[str, torch.Tensor]:
    if best is None:
        return {}
    return {
        "kept/head": torch.as_tensor(best[1].head),
        "kept/users": torch.as_tensor(best[1].user_weights),
    }


def _best_facts(best: tuple[float, Start, tuple[FitPoint, ...], float] | None) -> object:
    return None if best is None else [best[0], best[2], best[3]]


def _unpack_best(state: State) -> tuple[float, Start, tuple[FitPoint, ...], float] | None:
    if state.facts["kept"] is None:
        return None
    loss, looks, head_l2 = state.facts["kept"]
    kept = Start(state.tensors["kept/head"].numpy(), state.tensors["kept/users"].numpy())
    return loss, kept, tuple(FitPoint(*point) for point in looks), head_l2


def kept_cells(cells: Preferences, ties: str) -> Preferences:
    """Return the cells of positive weight, without ties where ``ties`` is "drop"."""
    keep = cells.weight > 0.0
    if ties == "drop":
        keep &= cells.label != 0.5
    return Preferences(cells.user[keep], cells.pair[keep], cells.label[keep], cells.weight[keep])


__all__ = [
    "Factorization",
    "FitConfig",
    "RewardModel",
    "RunConfig",
    "Start",
    "accelerator_for",
    "fit_from_start",
    "fit_reward_model",
    "kept_cells",
    "prepare_features",
]
