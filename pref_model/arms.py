"""The arms of the benchmark: methods, ablations, numbers of base rewards, labels, questions.

It runs nothing. An arm's settings are data, so that adding one changes no other.
"""

from collections.abc import Sequence
from dataclasses import replace

from pref_model.comparators.linear import Classic, PerUser, Pref
from pref_model.comparators.lore import Lore
from pref_model.comparators.mrm import Mrm
from pref_model.comparators.pal import Pal
from pref_model.comparators.vpl import Vpl
from pref_model.model import FitConfig
from pref_model.protocol import Arm

FULL = "pref"
GROUPS = ("methods", "ablations", "rewards", "labels", "questions")


def arms(
    fit: FitConfig, d_tried: Sequence[int], n_labels: Sequence[int]
) -> dict[str, dict[str, Arm]]:
    """Every arm by group and name. The first method is the full one, which others differ from.

    PReF and classic RLHF choose among the head strengths of `fit` by validation likelihood, the
    model per user among five ridges; the others have five tries each.
    """
    return {
        "methods": _methods(fit),
        "ablations": _ablations(fit),
        "rewards": {f"d = {d}": Arm((Pref(replace(fit, d=d)),)) for d in d_tried if d != fit.d},
        "labels": {f"{n:,} labels": Arm((Pref(fit),), n_labels=n) for n in n_labels},
        "questions": {
            "asked by D-optimality": Arm((Pref(fit),), rule="d_optimal"),
            "asked by eq 9": Arm((Pref(fit),), rule="variance"),
            "asked by the authors' code": Arm((Pref(fit),), rule="authors"),
        },
    }


def _methods(fit: FitConfig) -> dict[str, Arm]:
    return {
        FULL: Arm((Pref(fit),), is_long=True),
        "classic": Arm((Classic(fit),)),
        "per_user": Arm((PerUser(),), is_long=True),
        "lore": Arm(
            tuple(
                Lore(learning_rate=rate, basis_l2=shrunk)
                for rate, shrunk in ((0.5, 0.0), (0.1, 0.3), (0.1, 3.0), (0.03, 3.0), (0.1, 10.0))
            )
        ),
        "mrm": Arm(
            tuple(
                Mrm(learning_rate=rate, head_l2=shrunk)
                for rate, shrunk in (
                    (0.01, 0.3), (0.03, 0.3), (0.01, 3.0), (0.03, 3.0), (0.03, 10.0),
                )
            )
        ),
        "pal_a": Arm(
            tuple(
                Pal("A", learning_rate=rate, adapt_learning_rate=adapt)
                for rate, adapt in (
                    (3e-4, 0.1), (1e-3, 0.1), (3e-3, 0.1), (1e-2, 0.1), (3e-3, 0.03),
                )
            )
        ),
        "pal_b": Arm(
            tuple(
                Pal("B", learning_rate=rate, adapt_learning_rate=adapt)
                for rate, adapt in (
                    (3e-4, 0.1), (1e-3, 0.1), (3e-3, 0.1), (1e-3, 0.03), (3e-3, 0.03),
                )
            )
        ),
        "vpl": Arm(
            tuple(
                Vpl(learning_rate=rate, weight_decay_l2=decay, steps=1500, users_per_step=16)
                for rate, decay in (
                    (1e-3, 1e-4), (2e-3, 1e-4), (3e-3, 1e-4), (3e-3, 1e-5), (5e-3, 1e-4),
                )
            )
        ),
    }  # fmt: skip


def _ablations(fit: FitConfig) -> dict[str, Arm]:
    no_l2 = replace(fit, user_l2=0.0, head_l2=(0.0,))
    changed = {
        "random start": Pref(replace(fit, start="random")),
        "raw SVD start": Pref(replace(fit, start="svd_raw")),
        "no L2 on users": Pref(replace(fit, user_l2=0.0)),
        "no L2 on the head": Pref(replace(fit, head_l2=(0.0,))),
        "no L2 at all": Pref(no_l2),
        "no L2, random start": Pref(replace(no_l2, start="random")),
        "no gradient steps": Pref(replace(fit, steps=0)),
        "ties dropped": Pref(replace(fit, ties="drop")),
        "ridge prior for new users": Pref(fit, prior="ridge"),
        "all steps": Pref(fit, is_stopped=False),
        "all steps, random start": Pref(replace(fit, start="random"), is_stopped=False),
        "all steps, no L2": Pref(no_l2, is_stopped=False),
        "all steps, no L2, random start": Pref(replace(no_l2, start="random"), is_stopped=False),
    }
    return {name: Arm((method,)) for name, method in changed.items()}
