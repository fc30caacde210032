"""Every column of the warehouse, declared once.

It groups no columns into tables and checks no rows.
"""

from dataclasses import dataclass

import pyarrow as pa

METHODS = (
    "pref", "classic", "per_user", "longer", "pref_samples", "in_context", "summary",
    "system_prompt",
)  # fmt: skip
RATINGS = ("1", "2", "3", "4", "5")
PROB_ORIGINS = ("verdict", "logprobs", "logprobs_bound")
UNPARSED_REASONS = (
    "empty", "no_verdict", "off_menu", "truncated", "content_filter", "refused", "no_label",
)  # fmt: skip
ARM_GROUPS = ("methods", "ablations", "rewards", "labels", "questions")
CHECK_KINDS = (
    "null_persona", "swapped_persona", "repeat", "identical", "second_judge", "human",
)  # fmt: skip
CONSTRAINTS = ("key", "not_null", "values", "range", "exclusive", "foreign_key")


@dataclass(frozen=True)
class Field:
    """One column: the same name has the same type, unit and meaning in every table.

    Attributes:
        name: Column name.
        type: Arrow type.
        description: What a value means, in one sentence.
        unit: Unit of a value, or of the elements of a list; None where there is none.
        allowed: The only values permitted, or None.
        low: Smallest value permitted (for a list: of its elements), or None.
        high: Largest value permitted (for a list: of its elements), or None.
    """

    name: str
    type: pa.DataType
    description: str
    unit: str | None = None
    allowed: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None


def _text(name: str, description: str, allowed: tuple[str, ...] | None = None) -> Field:
    return Field(name, pa.string(), description, allowed=allowed)


def _flag(name: str, description: str) -> Field:
    return Field(name, pa.bool_(), description)


def _count(name: str, unit: str, description: str) -> Field:
    return Field(name, pa.int64(), description, unit, low=0)


def _fraction(name: str, unit: str, description: str) -> Field:
    return Field(name, pa.float64(), description, unit, low=0.0, high=1.0)


def _number(name: str, unit: str | None, description: str) -> Field:
    return Field(name, pa.float64(), description, unit)


def _vector(name: str, element: pa.DataType, unit: str | None, description: str) -> Field:
    return Field(name, pa.list_(element), description, unit)


_DECLARED = (
    # prompts and personas
    _text("prompt_id", "Name of a prompt, stable from run to run."),
    _text("prompt_text", "What the user asked, exactly as it is sent to a model."),
    _text("prompt_source", "Where the prompt came from: a file, a hub id, 'generated'."),
    _text("persona_id", "Name of a user (persona), stable from run to run."),
    _text(
        "persona_kind",
        "Which family of users the persona belongs to; generated = made up to fill a data set.",
        ("attributes", "prism", "own", "generated"),
    ),
    _text("trait_1", "First of the two signed traits the persona prefers; null if not known."),
    _text("trait_2", "Second of the two signed traits the persona prefers; null if not known."),
    _text("profile_text", "The persona in words, as a judge reads it; null if not known."),
    _text("system_text", "What the user would tell a model about how to behave; null if not told."),
    # openings of conversations, and what became of them
    _text("opening_id", "Name of a conversation, which stands for its first prompt."),
    _flag("is_generated", "Whether the row was made up to fill a data set."),
    _text("author_id", "User who wrote the prompt, by the name it has in the data set."),
    _text(
        "conversation_type",
        "What the author was asked to talk about.",
        ("unguided", "values guided", "controversy guided"),
    ),
    Field(
        "human_score",
        pa.float64(),
        "The author's own rating of the response; null if not known.",
        "points of 100",
        low=1.0,
        high=100.0,
    ),
    _flag("is_chosen", "Whether the author rated the response highest; null if not known."),
    _text("left_out_by", "Filter that left the opening out; null while it is in."),
    _text("merged_into_id", "Opening kept in place of this near-duplicate; null for the others."),
    _text("rating", "The option that the rater chose; null when unparsed.", RATINGS),
    _text("rating_model", "Model that rated."),
    _count("funnel_step", "steps", "Place of the filter, from 0 for what was read."),
    _text("filter", "What the filter asks of a prompt."),
    _text("filter_setting", "The filter's setting as JSON."),
    _count("n_left_out", "prompts", "Prompts that the filter left out."),
    _count("n_left", "prompts", "Prompts left after the filter."),
    # responses and pairs
    _text("response_id", "Name of one generated text."),
    _text(
        "response_role",
        "What the text is for: a side of a pair, a base response, another sample like it, a"
        " critique or revision of one; own = handed in with answers of real users.",
        ("pair_a", "pair_b", "base", "sample", "critique", "revision", "own"),
    ),
    _text("toward_persona_id", "User whom the text was written for; null for none in particular."),
    _text("style", "Traits the responder was told to show, joined by '+'; null for none."),
    _text(
        "parent_response_id",
        "The text that this one criticizes or rewrites, or is copied from; null if none.",
    ),
    _text("response_text", "The generated text; null when the model gave none."),
    _text("finish_reason", "Why the model stopped, in its server's words; null if it did not say."),
    _text(
        "request_key",
        "SHA-256 of the call that gave the reply, its name in the ledger; null for no call.",
    ),
    _text("response_model", "Model that wrote the response; null if not known."),
    _text("pair_id", "Name of a pair of responses to one prompt."),
    _text("response_a_id", "First response (A) of the pair; preferences are P(A preferred)."),
    _text("response_b_id", "Second response (B) of the pair."),
    # judging
    _text(
        "presentation_order",
        "Order shown to the judge; ab = A (or the personalized response) first, ba = second.",
        ("ab", "ba"),
    ),
    _count("repeat", "repeats", "Index of a repeated identical question, from 0."),
    _text("judge_model", "Model that judged."),
    _text(
        "verdict",
        "Which of the two shown responses the judge chose, by position; null when unparsed.",
        ("first", "second"),
    ),
    _flag("is_exact_form", "Whether the reply was exactly the form that was asked for."),
    _text(
        "unparsed_reason",
        "Why the reply gives no verdict; null when it gives one.",
        UNPARSED_REASONS,
    ),
    _fraction(
        "prefers_a_prob",
        "probability",
        "That the judge prefers A: 1 or 0 from the verdict alone; null if unparsed.",
    ),
    _text(
        "prob_origin",
        "Where the probability comes from: the verdict, or log probabilities of its token.",
        PROB_ORIGINS,
    ),
    _fraction("a_low_prob", "probability", "Its lower bound where a rival token is not reported."),
    _fraction("a_high_prob", "probability", "Its upper bound, as above."),
    _fraction(
        "prefers_personalized_prob",
        "probability",
        "1 if the judge chose the personalized response, 0 if the base; null if unparsed.",
    ),
    _text("reply_text", "The judge's reply before parsing; null when there was no text."),
    # answers of real users
    _count("answer_row", "rows", "Row of the preference file, from 1."),
    _flag("is_swapped", "Whether what the file calls A is B here, and the other way round."),
    Field(
        "answer_weight",
        pa.float64(),
        "How many full answers the row counts for.",
        "answers",
        low=0.0,
    ),
    Field("answered_at", pa.timestamp("us", "UTC"), "When the user answered; null if not known."),
    # preferences
    _fraction(
        "preference_prob",
        "probability",
        "P(A preferred): mean over presentation orders; null when no order gave a verdict.",
    ),
    _count("n_valid", "judgments", "Judgments with a verdict."),
    _count("n_asked", "judgments", "Judgments asked for."),
    _flag("is_tie", "Whether the verdicts cancel out, so that neither response is preferred."),
    # judge audit
    _text(
        "slice_kind",
        "What the audited judgments have in common.",
        ("overall", "judge", "persona", "length_gap"),
    ),
    _text("slice_id", "Which slice: 'all', a model, a persona, how many times as long one is."),
    _count("n_judgments", "judgments", "Judgments in the slice."),
    _count("n_exact", "judgments", "Judgments whose reply had exactly the form asked for."),
    _count("n_tolerated", "judgments", "Judgments with a verdict in another form."),
    _count("n_unparsed", "judgments", "Judgments without a verdict."),
    _fraction("unparsed_share", "share of judgments", "Judgments without a verdict, as a share."),
    _count("n_refused", "judgments", "Judgments that the model or its server declined to give."),
    _fraction("longer_share", "share of verdicts", "Verdicts for the longer of the responses."),
    _count("n_complete", "cells", "Cells with a verdict in both presentation orders."),
    _count("n_consistent", "cells", "Complete cells whose two orders chose the same response."),
    _fraction("consistent_share", "share of complete cells", "Consistent among complete cells."),
    _fraction("first_share", "share of verdicts", "Verdicts for the response shown first."),
    _fraction("first_share_low", "share of verdicts", "Lower end of first_share's interval."),
    _fraction("first_share_high", "share of verdicts", "Upper end of first_share's interval."),
    _number("position_bias_logit", "logit", "Judge's lean to the response shown first."),
    _number("position_bias_low_logit", "logit", "Lower end of position_bias_logit's interval."),
    _number("position_bias_high_logit", "logit", "Upper end of position_bias_logit's interval."),
    # checks of the judge
    _text(
        "check_kind",
        "Which check the question belongs to; see `tasks._stages.check_cells`.",
        CHECK_KINDS,
    ),
    _text("item_id", "What was compared: a pair, or two responses of the data set, chosen|other."),
    _text("shown_persona_id", "Persona whose profile the judge was given; null for nobody's."),
    Field(
        "certainty",
        pa.float64(),
        "How certain the judge says it is; null if it was not asked or did not say.",
        "points of 100",
        low=0.0,
        high=100.0,
    ),
    _count("n_compared", "judgments", "Judgments whose verdict has another one to stand beside."),
    _fraction("agreement_share", "share of judgments", "Compared verdicts that are the same."),
    _fraction("agreement_low", "share of judgments", "Lower end of agreement_share's interval."),
    _fraction("agreement_high", "share of judgments", "Upper end of agreement_share's interval."),
    _number("kappa", None, "Cohen's kappa of the compared verdicts; null where undefined."),
    _number("alpha", None, "Krippendorff's alpha of the compared verdicts; null where undefined."),
    _number(
        "margin_correlation", None, "Correlation of margins fitted on one and the other judge."
    ),
    _fraction("subspace_cosine", "cosine", "Mean cosine of angles between the fitted spaces."),
    # checks of the data
    _text("checked_dataset", "Dataset that was checked."),
    _text("checked_version", "Version of the dataset that was checked."),
    _text(
        "check_name",
        "What was checked: a constraint that the table declares, coverage, or drift against the"
        " version before it.",
        (*CONSTRAINTS, "coverage", "drift"),
    ),
    _text("checked_columns", "Column, columns or measure that the check is about."),
    _text(
        "outcome",
        "passed; warned = told and gone on; failed = what is downstream was stopped.",
        ("passed", "warned", "failed"),
    ),
    _count("n_checked", "rows", "Rows or cells that were looked at."),
    _count("n_faulty", "rows", "Rows or cells that break the constraint, or changed most."),
    _text("faulty_rows", "Keys of up to three of these and what is wrong; null if there are none."),
    _number("previous_value", None, "The number in the version before it; null without one."),
    _number("tolerance", None, "How far the number may be off; null where nothing is off at all."),
    _text("previous_version", "Version that it was compared with; null where none was."),
    # splits
    _text("entity_kind", "Whether the row is about a persona or a pair.", ("persona", "pair")),
    _text("entity_id", "The persona_id or pair_id."),
    _text("side", "seen in training, or new.", ("seen", "new")),
    _text("fact", "What was counted about the data and its split."),
    _count("n_counted", "of what the fact names", "How many there are."),
    # models and what they compute
    _vector("embedding", pa.float32(), None, "Encoder's vector of prompt and response."),
    _vector(
        "text_features",
        pa.float32(),
        None,
        "Length, structure and punctuation of the response, as `pref_model.text_features` orders"
        " them.",
    ),
    _text("method", "How the user's taste is modeled.", METHODS),
    _count("n_base_rewards", "base rewards", "Width d of the base rewards."),
    _count("embedding_width", "dimensions", "Width D of the embeddings the model reads."),
    _text("encoder", "Name and revision of the text encoder."),
    _text("file_name", "File beside the rows that holds the trained weights."),
    _text("file_sha256", "SHA-256 of that file."),
    _vector("base_rewards", pa.float32(), "logit", "Base rewards of the response, length d."),
    _vector("weights", pa.float64(), None, "The user's weights on the base rewards, length d."),
    # a trained backbone
    _count("n_steps", "steps", "Optimizer steps taken."),
    _count("n_passes", "texts", "Texts that went through the network, in training and in looks."),
    _number("train_nll", "nats a label", "Mean negative log likelihood in training at the end."),
    _number(
        "start_validation_nll",
        "nats a label",
        "That of seen users on new pairs with the network as it was; null without such pairs.",
    ),
    _number("validation_nll", "nats a label", "The same with the trained network that was kept."),
    # how many base rewards
    _number("singular_value", None, "That component's singular value of the centered answers."),
    _number("noise_edge", None, "Largest singular value expected of noise of the same size."),
    _number(
        "log_likelihood_mean",
        "nats a label",
        "Mean likelihood of held-out answers with that many base rewards; null if not tried.",
    ),
    _number("log_likelihood_low", "nats a label", "Lower end of log_likelihood_mean's interval."),
    _number("log_likelihood_high", "nats a label", "Upper end of log_likelihood_mean's interval."),
    _flag("is_spectrum_choice", "Whether that many singular values lie above the noise."),
    _flag(
        "is_likelihood_choice",
        "Whether it is the least number within one standard error of the best likelihood.",
    ),
    _flag("is_used", "Whether the model is fitted with that many base rewards."),
    # a retrain in an earlier model's basis
    _text("aligned_to_version", "Version of the earlier models whose basis was kept."),
    _flag("is_same_encoder", "Whether the earlier model reads the same embeddings."),
    _count("n_shared_pairs", "pairs", "Pairs that both models score."),
    _number(
        "alignment_error_share",
        "share of margins",
        "Root-mean-square change of stored users' margins on held-out pairs over their size.",
    ),
    _fraction(
        "changed_users_share",
        "share of users",
        "Stored users who would choose otherwise in at least one held-out pair.",
    ),
    _fraction(
        "changed_cells_share",
        "share of cells",
        "Held-out choices of stored users that change: cells of user and pair.",
    ),
    _number(
        "order_tau",
        None,
        "Mean Kendall tau-b of stored users' orders of held-out pairs; null if none has an order.",
    ),
    # what base rewards are about
    Field("base_reward", pa.int64(), "Number of a base reward, from 1.", low=1),
    # No upper end: rounding passes 1, and in an earlier model's basis the parts overlap.
    Field(
        "explained_share",
        pa.float64(),
        "Its part of the mean squared margin.",
        "share of variance",
        low=0.0,
    ),
    _number("weight_mean", None, "Mean over users of their weight on the base reward."),
    _text("end", "Which end of the base reward's order of responses.", ("top", "bottom")),
    Field("place", pa.int64(), "Place at that end, from 1.", low=1),
    _number(
        "deviation_logit",
        "logit",
        "Base reward of the response above the mean of its prompt's responses.",
    ),
    _text("attribute", "Attribute whose two opposite traits are compared."),
    Field(
        "correlation",
        pa.float64(),
        "Pearson correlation over users of weight and signed trait; null if either is constant.",
        low=-1.0,
        high=1.0,
    ),
    _text("label", "What the base reward rewards, in a model's words; null when unparsed."),
    _text("label_model", "Model that proposed the label."),
    # adaptation and measures
    _count("n_answers", "answers", "Answers of a new user that the method has learned from."),
    _count("step", "answers", "Place of the question in the user's interview, from 1."),
    _text("rule", "Rule that chose the question."),
    _number("rule_score", None, "What the rule maximized; null for a rule without a score."),
    _fraction("answer_prob", "probability", "The user's answer: P(A preferred) of the pair asked."),
    _fraction("auc", "probability", "Area under the user's ROC curve; null if all answers agree."),
    _count("n_pairs", "pairs", "Test pairs that are not ties."),
    _fraction("auc_mean", "probability", "Mean of the users' AUC; null if none has one."),
    _fraction("auc_low", "probability", "Lower end of auc_mean's interval."),
    _fraction("auc_high", "probability", "Upper end of auc_mean's interval."),
    _count("n_users", "users", "Users that the mean is over."),
    _fraction(
        "right_share",
        "share of pairs",
        "The user's test pairs ranked as the user did; equal rewards count half.",
    ),
    _fraction(
        "accuracy_mean",
        "share of pairs",
        "Test pairs of all users ranked as their users did; null if there is none.",
    ),
    _fraction("accuracy_low", "share of pairs", "Lower end of accuracy_mean's interval."),
    _fraction("accuracy_high", "share of pairs", "Upper end of accuracy_mean's interval."),
    _number(
        "lead_mean",
        "share of pairs",
        "accuracy_mean less that of choosing the longer response, on the same pairs.",
    ),
    _number("lead_low", "share of pairs", "Lower end of lead_mean's interval."),
    _number("lead_high", "share of pairs", "Upper end of lead_mean's interval."),
    _text("base_response_id", "The response every user gets without personalization."),
    _fraction(
        "win_rate_mean",
        "share of comparisons",
        "Mean of the users' win rates; null if no user has one.",
    ),
    _fraction("win_rate_low", "share of comparisons", "Lower end of win_rate_mean's interval."),
    _fraction("win_rate_high", "share of comparisons", "Upper end of win_rate_mean's interval."),
    _count("n_comparisons", "comparisons", "Comparisons of a personalized and a base response."),
    _count("n_ties", "comparisons", "Comparisons whose two orders disagree, half a win each."),
    _count(
        "n_users_needed",
        "users",
        "Users that an interval of 5 points to either side would take; null where nobody differs.",
    ),
    _fraction(
        "controlled_rate_mean",
        "share of comparisons",
        "Win rate predicted for responses as long as the base; null where length stays the same.",
    ),
    _fraction(
        "controlled_rate_low",
        "share of comparisons",
        "Lower end of controlled_rate_mean's interval.",
    ),
    _fraction(
        "controlled_rate_high",
        "share of comparisons",
        "Upper end of controlled_rate_mean's interval.",
    ),
    _number(
        "length_effect_logit",
        "logit",
        "What tanh of the standardized length gap adds to a win's logit; null if not fitted.",
    ),
    _number(
        "length_gap_mean",
        "characters",
        "How much longer the personalized response is than the base; mean over users.",
    ),
    _fraction(
        "win_rate_bound",
        "share of comparisons",
        "N / (N + 1): most that the best of N samples like the base can win; null elsewhere.",
    ),
    _text("summary_text", "The user's answers in a model's words; null when it gave none."),
    _count("prompt_tokens", "tokens", "Tokens sent; null where a reply does not say."),
    _count("completion_tokens", "tokens", "Tokens written; null where a reply does not say."),
    Field(
        "cost_usd",
        pa.float64(),
        "What it cost when it was bought; null where a price is not known.",
        "US$",
        low=0.0,
    ),
    _count("n_calls", "calls", "Calls that the method made beyond the base responses."),
    _text("other_method", "The method that is compared with.", METHODS),
    _number(
        "difference_mean",
        "share of comparisons",
        "Win rate less the other one's, on the same comparisons; null if there is none.",
    ),
    _number("difference_low", "share of comparisons", "Lower end of difference_mean's interval."),
    _number("difference_high", "share of comparisons", "Upper end of difference_mean's interval."),
    # benchmark
    _text("arm_group", "What the arm is compared for.", ARM_GROUPS),
    _text("arm", "Method, or what was changed about PReF."),
    _count("seed", "seeds", "Number of the split, from 0."),
    _text("cell_sha256", "First digits of the hash of all that shapes the arm on this seed."),
    _count("n_labels", "labels", "Labels of the matrix that were bought; null for all of them."),
    _number("gap_mean", "probability", "auc_mean less that of PReF, paired by user."),
    _number("gap_low", "probability", "Lower end of gap_mean's interval."),
    _number("gap_high", "probability", "Upper end of gap_mean's interval."),
    _number(
        "seed_spread",
        "probability",
        "Standard deviation over seeds of the users' mean AUC; null for one seed.",
    ),
    _count("n_seeds", "seeds", "Splits that the mean is over."),
    # report
    _text("figure", "Table or figure of the report that prints the number."),
    _text("key", "Which number of that figure."),
    _number("value", None, "The number as computed, before rounding; null when undefined."),
    _number("low", None, "Lower end of the number's interval; null where there is none."),
    _number("high", None, "Upper end of the number's interval; null where there is none."),
)

FIELDS: dict[str, Field] = {field.name: field for field in _DECLARED}
