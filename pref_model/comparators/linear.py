"""PReF itself, classic RLHF and a model per user, wrapped in the comparators' interface."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pref_model.adapt import UserPrior, adapt_users, training_prior
from pref_model.baselines import choose_user_ridge, fit_classic, fit_user_heads
from pref_model.comparators.interface import Answers, Corpus, Study
from pref_model.errors import BadSetting
from pref_model.fit import fit_reward_model
from pref_model.model import FitConfig, RewardModel, RunConfig
from pref_model.protocol import Matrix
from pref_model.questions import RULES, run_questionnaire
from pref_model.types import Floats, Ints, preferences_to_matrix

# Refitting the training users for the prior of new ones needs some ridge to be finite.
LEAST_RIDGE = 1e-3


@dataclass(frozen=True)
class Pref:
    """Reward factorization: eq 5 for the base rewards, eq 6 for new users.

    Attributes:
        config: What is fitted.
        prior: New users start from the training users, or from the ridge of eq 6.
        is_stopped: Whether the validation part stops the fit and chooses the head's strength.
        name: Short name.
    """

    config: FitConfig = field(default_factory=FitConfig)
    prior: Literal["training_users", "ridge"] = "training_users"
    is_stopped: bool = True
    name: str = "pref"

    def fit(self, study: Study, seed: int) -> "FittedPref":
        """Fit base rewards; measure the prior on the training cells."""
        model = fit_reward_model(
            study.corpus.differences,
            study.train,
            study.n_users,
            self.config,
            RunConfig(seed=seed),
            study.validation if self.is_stopped else None,
        )
        ridge = max(self.config.user_l2, LEAST_RIDGE)
        if self.prior == "ridge":
            return FittedPref(model, UserPrior.ridge(model.d, ridge))
        features = model.pair_features(study.corpus.differences)
        return FittedPref(model, training_prior(features, study.train, study.n_users, ridge))


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

    def ask(
        self, matrix: Matrix, users: Ints, pairs: Ints, rule: str, k: int, seed: int
    ) -> Answers:
        """Ask some users k of some pairs, each question chosen after the answer before it."""
        named = {str(one): one for one in RULES}
        if rule not in named:
            raise BadSetting(
                f"questions: found rule '{rule}', expected one of {', '.join(RULES)}; name one"
            )
        asked = run_questionnaire(
            self.model.pair_features(matrix.corpus.differences)[pairs],
            matrix.prompt_of_pair[pairs],
            matrix.labels[np.ix_(users, pairs)],
            self.prior,
            named[rule],
            k,
            [f"{seed}-{matrix.users[one]}" for one in users],
            seed=seed,
        )
        # A question that could not be asked is a row of the corpus without an answer.
        return Answers(pairs[np.maximum(asked.asked, 0)], asked.answers)

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
        heads = fit_user_heads(corpus.differences, answers.pair, answers.label, self.scale, ridge)
        return heads.heads / self.scale

    def score(self, users: Floats, corpus: Corpus) -> Floats:
        """Return margins (U, M)."""
        result: Floats = users @ corpus.differences.T
        return result
