"""One cell of the benchmark: an arm fitted on one split, its new users adapted and tested.

It knows no method by name, reads no data and draws no split; see `pref_model.arms`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from pref_model.comparators.interface import (
    Answers,
    Comparator,
    Corpus,
    Fitted,
    Study,
    random_answers,
)
from pref_model.errors import BadSetting
from pref_model.metrics import auc_per_user
from pref_model.types import Floats, Ints, Preferences, make_preferences

# The number of answers at which tries are compared, on seen users and validation pairs.
TUNED_AT = 10


class Matrix(NamedTuple):
    """Every user's label of every pair, and the embeddings of the pairs.

    Attributes:
        users: U ids, sorted.
        pairs: M ids, sorted.
        prompt_of_pair: (M,) equal numbers share a prompt.
        labels: (U, M) mean of both orders' verdicts, nan where an order has none.
        corpus: Embeddings (M, D) of both responses.
    """

    users: list[str]
    pairs: list[str]
    prompt_of_pair: Ints
    labels: Floats
    corpus: Corpus


class Split(NamedTuple):
    """Rows of the users and pairs to learn from, and of those to test on, sorted (METHOD 2).

    known x seen is the training part, known x new validation, fresh x seen calibration,
    fresh x new the test.
    """

    known: Ints
    fresh: Ints
    seen: Ints
    new: Ints

    def study(self, matrix: Matrix, labels: Floats | None = None) -> Study:
        """What a method may learn from; users are rows of `known`, pairs those of the matrix."""
        own = matrix.labels[self.known] if labels is None else labels
        return Study(matrix.corpus, cells(own, self.seen), cells(own, self.new), len(self.known))


@dataclass(frozen=True)
class Arm:
    """A method, or one thing changed about it.

    Attributes:
        tries: Settings of the method; several are chosen among by the AUC of seen users, adapted
            to ten answers, on the validation pairs.
        n_labels: Labels (cells of the matrix) that were bought; None for all of them.
        rule: How questions are chosen (`pref_model.questions.RULES`); all but "random" need a
            method that can ask.
        is_long: Whether it is also measured after many answers.
    """

    tries: tuple[Comparator, ...]
    n_labels: int | None = None
    rule: str = "random"
    is_long: bool = False


@runtime_checkable
class Asking(Protocol):
    """A fitted method that chooses its own questions."""

    def ask(
        self, matrix: Matrix, users: Ints, pairs: Ints, rule: str, k: int, seed: int
    ) -> Answers:
        """Ask some users k of some pairs, one after another."""
        ...


def cells(labels: Floats, pairs: Ints) -> Preferences:
    """The observed cells (user row, pair) of some pairs."""
    user, place = np.nonzero(~np.isnan(labels[:, pairs]))
    return make_preferences(user, pairs[place], labels[user, pairs[place]])


def run_cell(arm: Arm, matrix: Matrix, split: Split, seed: int, counts: Sequence[int]) -> Floats:
    """AUC of each new user on new pairs after each number of answers.

    Args:
        arm: What is measured.
        matrix: The preferences.
        split: Who and what is new.
        seed: Of every random choice.
        counts: Numbers of answers, rising.

    Returns:
        (V, len(counts)) in [0, 1]; nan for a user whose test answers all agree.
    """
    known = matrix.labels[split.known]
    if arm.n_labels is not None:
        known = _bought(known, arm.n_labels / np.sum(~np.isnan(matrix.labels)), seed)
    study = split.study(matrix, known)
    fitted = [one.fit(study, seed) for one in arm.tries]
    best = fitted[0]
    if len(fitted) > 1:
        k = min(TUNED_AT, len(split.seen))
        answers = random_answers(known, split.seen, k, seed=seed + 1000)
        values = [np.nanmean(_auc(one, matrix, split, known, answers)) for one in fitted]
        best = fitted[int(np.argmax(values))]
    fresh = matrix.labels[split.fresh]
    if arm.rule == "random":
        answers = random_answers(fresh, split.seen, max(counts), seed=seed)
    elif isinstance(best, Asking):
        answers = best.ask(matrix, split.fresh, split.seen, arm.rule, max(counts), seed)
    else:
        raise BadSetting(
            f"benchmark: found rule '{arm.rule}' with {type(best).__name__}, which cannot ask;"
            " expected a method with base rewards"
        )
    found = [_auc(best, matrix, split, fresh, answers.head(k)) for k in counts]
    return np.stack(found, axis=1)


def mean_by_user(n_users: int, rows: Sequence[Ints], values: Sequence[Floats]) -> Floats:
    """Mean over the seeds in which a user was new: (U, ...), nan for one who never was.

    Args:
        n_users: U.
        rows: The new users of each seed.
        values: Their figures (V, ...), nan where there is none.
    """
    total = np.zeros((n_users, *values[0].shape[1:]))
    count = np.zeros_like(total)
    for users, value in zip(rows, values, strict=True):
        np.add.at(total, users, np.nan_to_num(value))
        np.add.at(count, users, ~np.isnan(value))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _bought(labels: Floats, share: float, seed: int) -> Floats:
    keep = np.random.default_rng([seed, 11]).random(labels.shape) < share
    return np.where(keep, labels, np.nan)


def _auc(fitted: Fitted, matrix: Matrix, split: Split, labels: Floats, answers: Answers) -> Floats:
    users = fitted.adapt(matrix.corpus, answers)
    margins = fitted.score(users, matrix.corpus.take(split.new))
    return auc_per_user(margins, labels[:, split.new])
