"""How many base rewards the answers support, beside how many are fitted. It changes no setting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tasks._stages.stage import Inputs, Output, Stage
from tasks._stages.worlds import load_world
from warehouse.tables import TABLES

NUMBERS = (1, 2, 3, 4, 6, 8, 10, 12)
# Normal quantile of a two-sided 95 % interval.
Z = 1.96


def build(inputs: Inputs) -> dict[str, Output]:
    """Spectrum and cross-validated likelihood of the train part: seen users, seen pairs.

    The spectrum suggests as many base rewards as singular values lie above the noise edge; the
    likelihood the smallest number within one standard error of the best (`pref_model.rank`).
    """
    from pref_model.fit import kept_cells
    from pref_model.rank import rank_curve
    from pref_model.svd import spectrum

    config = inputs.config
    world = load_world(inputs)
    n_users, n_pairs = world.n_seen_users, world.n_seen_pairs
    cells = kept_cells(world.part("train"), config["ties"])
    most = min(n_users, n_pairs)
    tried = sorted({one for one in (*NUMBERS, config["d"]) if one <= most})
    curve = rank_curve(cells, n_users, n_pairs, tried, seed=config["seed"])
    spread = spectrum(cells, n_users, n_pairs, tried[-1], seed=config["seed"])
    above = int(np.sum(spread.singular_values > spread.noise_edge))
    place = {int(d): row for row, d in enumerate(curve.d)}
    rows: list[dict[str, Any]] = []
    for d, singular in enumerate(spread.singular_values.tolist(), start=1):
        row = place.get(d)
        mean = None if row is None else float(curve.mean_log_likelihood[row])
        half = 0.0 if row is None else Z * float(curve.mean_error[row])
        rows.append(
            {
                "n_base_rewards": d,
                "singular_value": singular,
                "noise_edge": spread.noise_edge,
                "log_likelihood_mean": mean,
                "log_likelihood_low": None if mean is None else mean - half,
                "log_likelihood_high": None if mean is None else mean + half,
                "is_spectrum_choice": d == max(above, 1),
                "is_likelihood_choice": d == curve.chosen,
                "is_used": d == config["d"],
            }
        )
    return {"rank_curve": Output(pa.Table.from_pylist(rows, TABLES["rank_curve"].schema))}


STAGE = Stage(
    name="rank",
    reads=("pairs", "preferences", "splits"),
    writes=("rank_curve",),
    module=__name__,
    build=build,
)
