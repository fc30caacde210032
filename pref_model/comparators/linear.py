"""PReF itself, classic RLHF and a model per user, wrapped in the comparators' interface."""

from dataclasses import dataclass, field

import numpy as np

from pref_model.adapt import UserPrior, adapt_users, training_prior
from pref_model.baselines import choose_user_ridge, fit_classic, fit_user_heads
from pref_model.comparators.interface import Answers, Corpus, Study
from pref_model.fit import fit_reward_model
from pref_model.model import FitConfig, RewardModel, RunConfig
from pref_model.types import Floats, Ints, preferences_to_matrix


@dataclass(frozen=True)
class Pref:
    """Reward factorization: eq 5 for the base rewards, eq 6 with the training users' prior."""

    config: FitConfig = field(default_factory=FitConfig)
    name: str = "pref"

    def fit(self, study: Study, seed: int) -> "FittedPref":
        """Fit base rewards; measure the prior on the training cells."""
        model = fit_reward_model(
            study.corpus.differences,
            study.train,
            study.n_users,
            self.config,
            RunConfig(seed=seed),
            study.validation,
        )
        features = model.pair_features(study.corpus.differences)
        prior = training_prior(features, study.train, study.n_users, self.config.user_l2)
        return FittedPref(model, prior)


@dataclass(frozen=True)
class FittedPref:
    """Base rewards and prior; a user is lambda (d,)."""

    model: RewardModel
    prior: UserPrior

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """MAP weights (U, d)."""
        features = self.model.pair_features(corpus.differences)[answers.pair]
        present = (~np.isnan(answers.label)).astype(np.float64)
        return adapt_users(features, answers.label, present, self.prior).mean

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return lambda^T phi: (U, M)."""
        result: Floats = users @ self.model.pair_features(corpus.differences).T
        return result


@dataclass(frozen=True)
class Classic:
    """One reward for everybody (eq 2); a user is the number 1 whatever was answered."""

    config: FitConfig = field(default_factory=FitConfig)
    name: str = "classic"

    def fit(self, study: Study, seed: int) -> "FittedClassic":
        """Fit the shared reward."""
        return FittedClassic(
            fit_classic(
                study.corpus.differences,
                study.train,
                study.n_users,
                self.config,
                RunConfig(seed=seed),
                study.validation,
            )
        )


@dataclass(frozen=True)
class FittedClassic:
    """The shared reward."""

    model: RewardModel

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """Ones, (U, 1)."""
        return np.ones((len(answers.pair), 1))

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return the same margins for every user: (U, M)."""
        result: Floats = users @ self.model.pair_features(corpus.differences).T
        return result


@dataclass(frozen=True)
class PerUser:
    """A ridge logistic head on each user's own answers, nothing shared but the ridge strength.

    The strength is chosen for each number of answers on the training users. Departure: solved
    exactly, where the published form takes gradient steps of 1e-3 (METHOD section 6).
    """

    ridges: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    name: str = "per_user"

    def fit(self, study: Study, seed: int) -> "FittedPerUser":
        """Keep what choosing a strength needs; nothing is trained."""
        differences = study.corpus.differences
        seen, new = np.unique(study.train.pair), np.unique(study.validation.pair)
        labels = preferences_to_matrix(study.train, study.n_users, len(differences))
        held = preferences_to_matrix(study.validation, study.n_users, len(differences))
        labels[:, new] = held[:, new]
        scale = differences[seen].std(axis=0)
        scale = np.where(scale <= 1e-6 * scale.max(initial=0.0), 1e30, scale)
        scale = scale * np.sqrt(float(differences.shape[1]))
        return FittedPerUser(self, differences, labels, seen, new, scale, seed)


@dataclass(frozen=True)
class FittedPerUser:
    """The training answers; a user is a head on raw embeddings (D,)."""

    config: PerUser
    differences: Floats
    labels: Floats
    seen: Ints
    new: Ints
    scale: Floats
    seed: int

    def adapt(self, corpus: Corpus, answers: Answers) -> Floats:
        """Heads (U, D) from the users' own answers."""
        ridge = choose_user_ridge(
            self.differences,
            self.labels,
            self.seen,
            self.new,
            self.scale,
            min(answers.pair.shape[1], len(self.seen)),
            ridges=self.config.ridges,
            seed=self.seed,
        )
        own = corpus.differences[answers.pair]
        return fit_user_heads(own, answers.label, self.scale, ridge).heads / self.scale

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return margins (U, M)."""
        result: Floats = users @ corpus.differences.T
        return result
