"""Figures that the paper published, to stand beside ours. Digitized from its figures; no data.

About ±0.003 in AUC and ±0.4 points in win rates (arXiv 2503.06358). The paper's judge is gpt-4o
and its backbone Qwen2.5-0.5B, trained; AUC is over synthetic labels, as here.
"""

from __future__ import annotations

ANSWERS = (1, 3, 5, 10, 15, 20, 30, 40)
# AUC of new users on new pairs, by data set and method, at `ANSWERS`.
AUC: dict[str, dict[str, tuple[float | None, ...]]] = {
    "attributes": {
        "pref": (0.61, 0.77, 0.773, 0.832, 0.846, 0.845, 0.854, 0.879),
        "classic": (0.644,) * 8,
        "per_user": (None, None, 0.634, 0.654, 0.637, 0.683, 0.692, 0.731),
        "random": (None, None, 0.711, 0.748, 0.815, 0.794, 0.799, 0.820),
    },
    "prism": {
        "pref": (0.58, 0.76, 0.826, 0.829, 0.842, 0.850, 0.859, 0.861),
        "classic": (0.714,) * 8,
    },
}
# Win rate over the base response, percent, at these numbers of answers; None: whatever was known.
WIN_ANSWERS = (5, 10, 15, 20, 39)
WIN_RATES: dict[str, dict[str, tuple[float, ...]]] = {
    "attributes": {"pref": (68.0, 70.5, 71.5, 75.2, 81.2), "classic": (54.8,) * 5},
    "prism": {
        "pref": (76.7, 80.2, 79.9, 78.7, 80.4),
        "classic": (68.9,) * 5,
        "system_prompt": (61.9,) * 5,
    },
}
# AUC by ablation, on Attributes.
ABLATIONS = {"pref": 0.90, "no L2 at all": 0.81, "random start": 0.75}
# AUC by number of base rewards, on PRISM.
BASE_REWARDS = {1: 0.634, 2: 0.722, 4: 0.826, 6: 0.860, 8: 0.847, 12: 0.854}
# AUC by number of labels, on PRISM, with a backbone of 0.5B parameters.
LABELS = {4_000: 0.770, 90_000: 0.850}

CAVEAT = (
    "Published values (dashed, open markers) are digitized from the paper's figures (±0.003 AUC,"
    " ±0.4 points of win rate); its judge is gpt-4o, its users' labels are synthetic, its backbone"
    " is trained."
)


def curve(dataset: str, method: str) -> dict[int, float]:
    """Published AUC by number of answers; empty where the paper shows none."""
    values = AUC.get(dataset, {}).get(method, ())
    return {
        count: value for count, value in zip(ANSWERS, values, strict=False) if value is not None
    }


def win_curve(dataset: str, method: str) -> dict[int, float]:
    """Published win rate (share) by number of answers; empty where the paper shows none."""
    values = WIN_RATES.get(dataset, {}).get(method, ())
    return {count: value / 100 for count, value in zip(WIN_ANSWERS, values, strict=False)}
