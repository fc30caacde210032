"""What every method offers: fit on the train part, adapt on k answers, score pairs.

It says nothing of how a method works, and no method is listed here.
"""

from typing import NamedTuple, Protocol

import numpy as np

from pref_model.errors import BadArray
from pref_model.types import Floats, Ints, Preferences, finite_matrix


class Corpus(NamedTuple):
    """Embeddings of the pairs. Rows are pairs; two corpora of one study share their columns.

    Attributes:
        first: (M, D) float64, embeddings of the first responses.
        second: (M, D) float64, of the second ones.
    """

    first: Floats
    second: Floats

    @property
    def differences(self) -> Floats:
        """First minus second, (M, D)."""
        return self.first - self.second

    def take(self, pairs: Ints) -> "Corpus":
        """Return some of the pairs."""
        return Corpus(self.first[pairs], self.second[pairs])


class Study(NamedTuple):
    """What a method may learn from.

    Attributes:
        corpus: All pairs that a cell refers to.
        train: Cells of seen users on seen pairs.
        validation: Cells of seen users on new pairs, for stopping and for choosing strengths.
        n_users: U seen users.
    """

    corpus: Corpus
    train: Preferences
    validation: Preferences
    n_users: int


class Answers(NamedTuple):
    """k answers of each new user.

    Attributes:
        pair: (U, K) int64, rows of the corpus; any row where there is no answer.
        label: (U, K) in [0, 1], nan where there is no answer.
    """

    pair: Ints
    label: Floats

    def head(self, k: int) -> "Answers":
        """Return the first k answers of each user."""
        return Answers(self.pair[:, :k], self.label[:, :k])


class Fitted(Protocol):
    """A method after training."""

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """Return (U, S) what the method keeps of each user; only this needs the answers."""
        ...

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return (U, M) margins, rising with P(first preferred); swapping a pair negates them."""
        ...


class Comparator(Protocol):
    """A method before training, with its settings."""

    @property
    def name(self) -> str:
        """Short name used in tables."""
        ...

    def fit(self, study: Study, seed: int) -> Fitted:
        """Train on `study`; equal inputs and seed give equal results on the CPU."""
        ...


class Scaling(NamedTuple):
    """Centers and scales embeddings by the training pairs: mean squared length of a response 1.

    Where the training responses are fewer than the embedding's width D they are also rotated to
    the r directions they span. Nothing can be learned about the others, and every method gets
    D / r times cheaper; the rotation is a random one, so that no entry is larger than the rest.

    Attributes:
        mean: (D,).
        scale: (D,) > 0.
        rotation: (D, r) with orthonormal columns, or None.
    """

    mean: Floats
    scale: Floats
    rotation: Floats | None

    @classmethod
    def of(cls, study: Study) -> "Scaling":
        """Measure on the training pairs alone.

        Raises:
            BadArray: No training cell.
        """
        seen = np.unique(study.train.pair)
        if seen.size == 0:
            raise BadArray("comparator: found no training preference, expected at least one")
        both = np.concatenate([study.corpus.first[seen], study.corpus.second[seen]])
        both = finite_matrix(both, "embeddings")
        deviation = both.std(axis=0)
        silent = deviation <= 1e-6 * max(float(deviation.max(initial=0.0)), 1e-30)
        scale = np.where(silent, 1e30, deviation) * np.sqrt(float(both.shape[1]))
        mean = both.mean(axis=0)
        if len(both) >= both.shape[1]:
            return cls(mean, scale, None)
        _, size, right = np.linalg.svd((both - mean) / scale, full_matrices=False)
        kept = right[size > 1e-6 * size.max(initial=0.0)]
        noise = np.random.default_rng(0).standard_normal((len(kept), len(kept)))
        return cls(mean, scale, kept.T @ np.linalg.qr(noise)[0])

    def apply(self, corpus: Corpus) -> Corpus:
        """Return the scaled corpus; features that never vary in training become 0."""
        sides = [(side - self.mean) / self.scale for side in corpus]
        if self.rotation is not None:
            sides = [side @ self.rotation for side in sides]
        return Corpus(*sides)


def random_answers(labels: Floats, pairs: Ints, k: int, *, seed: int) -> Answers:
    """Draw k of `pairs` for each row of `labels` (U, M), without repeats, leaving nan out last.

    Each user's draw depends on (seed, row) alone; a user with fewer than k answers gets nan.
    """
    chosen = np.empty((len(labels), k), dtype=np.int64)
    for row, own in enumerate(labels):
        order = np.random.default_rng([seed, row]).permutation(pairs)
        known = ~np.isnan(own[order])
        chosen[row] = np.concatenate([order[known], order[~known]])[:k]
    return Answers(chosen, np.take_along_axis(labels, chosen, axis=1))
