"""What another judge's labels of the same cells do to the fitted factors. It judges nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pref_model.model import FitConfig, RunConfig
from pref_model.types import Floats, preferences_from_matrix


class FactorAgreement(NamedTuple):
    """Two fits on labels of the same cells, compared where no choice of basis matters.

    Attributes:
        margin_correlation: Correlation of the margins λ_uᵀφ_m that both predict, over all users
            and pairs of the cells.
        subspace_cosine: Mean cosine of the principal angles between the spaces that the two sets
            of pair features span; 1 for the same space.
    """

    margin_correlation: float
    subspace_cosine: float


def compare_factors(
    pair_differences: Floats,
    first: Floats,
    second: Floats,
    *,
    settings: Mapping[str, Any],
    seed: int,
) -> FactorAgreement:
    """Fits the reward model (eq 5) on each judge's labels and compares the two.

    Neither fit has a validation part, so one strength of the head is taken: the middle of those
    that `FitConfig.head_l2` tries.

    Args:
        pair_differences: (M, D) embeddings, first - second.
        first: (U, M) in [0, 1], one judge's labels, nan where there is none.
        second: (U, M), the other's, on the same cells.
        settings: Fields of `FitConfig`; d is lowered where there are fewer users or pairs.
        seed: Seed of both fits.
    """
    from pref_model.fit import fit_reward_model

    n_users, n_pairs = first.shape
    strengths = tuple(settings["head_l2"])
    config = FitConfig(
        **{
            **settings,
            "d": min(int(settings["d"]), n_users, n_pairs),
            "head_l2": (strengths[len(strengths) // 2],),
        }
    )
    run = RunConfig(device="cpu", seed=seed)
    margins: list[Floats] = []
    spaces: list[Floats] = []
    for labels in (first, second):
        model = fit_reward_model(
            pair_differences, preferences_from_matrix(labels), n_users, config, run
        )
        features = model.pair_features(pair_differences)
        margins.append((model.user_weights @ features.T).ravel())
        spaces.append(np.linalg.qr(features)[0])
    cosines = np.linalg.svd(spaces[0].T @ spaces[1], compute_uv=False)
    return FactorAgreement(
        float(np.corrcoef(margins[0], margins[1])[0, 1]), float(np.minimum(cosines, 1.0).mean())
    )
