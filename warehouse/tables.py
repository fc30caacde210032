"""Every dataset as a list of fields with a grain and a key. It holds no rows and opens no file."""

from warehouse.errors import DatasetMissing
from warehouse.table import (
    ANY_RESPONSE,
    OPENING,
    OPENING_RESPONSE,
    PAIR,
    PAIR_RESPONSE,
    PERSONA,
    POOL_RESPONSE,
    PROMPT,
    Table,
)
from warehouse.win_tables import WIN_TABLES

__all__ = ["TABLES", "Table", "table_named"]


_RESPONSE_COLUMNS = (
    "response_id", "prompt_id", "response_role", "style", "parent_response_id", "response_text",
    "finish_reason", "request_key", "response_model",
)  # fmt: skip
_COST = ("prompt_tokens", "completion_tokens", "cost_usd")
_RESPONSE_NULLABLE = frozenset({"style", "parent_response_id", "response_text", "finish_reason"})

_DECLARED = (
    Table(
        name="prompts",
        grain="One row is one prompt.",
        absent="The prompt was not ingested, or fell outside the number asked for.",
        key=("prompt_id",),
        columns=("prompt_id", "prompt_text", "prompt_source"),
    ),
    Table(
        name="personas",
        grain="One row is one user (persona).",
        absent="The persona was not chosen for this run.",
        key=("persona_id",),
        columns=("persona_id", "persona_kind", "trait_1", "trait_2", "profile_text", "system_text"),
        nullable=frozenset({"trait_1", "trait_2", "profile_text", "system_text"}),
    ),
    Table(
        name="openings",
        grain="One row is one conversation of the data set, by its first prompt.",
        absent="The conversation is not in the data set.",
        key=("opening_id",),
        columns=("opening_id", "author_id", "conversation_type", "prompt_text", "is_generated"),
    ),
    Table(
        name="opening_responses",
        grain="One row is one response of the data set to a conversation's first prompt.",
        absent="The data set has no such response, or its text is empty.",
        key=("response_id",),
        columns=(
            "response_id", "opening_id", "response_text", "response_model", "human_score",
            "is_chosen", "is_generated",
        ),
        nullable=frozenset({"response_model", "human_score", "is_chosen"}),
        foreign={"opening_id": OPENING},
    ),
    Table(
        name="candidates",
        grain="One row is one opening and what the filters that need no call made of it.",
        absent="The opening is not in the data set.",
        key=("opening_id",),
        columns=("opening_id", "left_out_by", "merged_into_id"),
        nullable=frozenset({"left_out_by", "merged_into_id"}),
        foreign={"opening_id": OPENING, "merged_into_id": OPENING},
    ),
    Table(
        name="prompt_ratings",
        grain="One row is one rating of how far people would disagree about answers to a prompt.",
        absent="The opening was left out before, or ratings were not asked for.",
        key=("opening_id",),
        columns=(
            "opening_id", "request_key", "rating_model", "rating", "unparsed_reason", "reply_text",
        ),
        nullable=frozenset({"rating", "unparsed_reason", "reply_text"}),
        foreign={"opening_id": OPENING},
        one_null=(("rating", "unparsed_reason"),),
    ),
    Table(
        name="prompt_funnel",
        grain="One row is one filter between the data set's openings and the prompts of the run.",
        absent="There is no such filter.",
        key=("funnel_step",),
        columns=("funnel_step", "filter", "filter_setting", "n_left_out", "n_left"),
    ),
    Table(
        name="responses",
        grain="One row is one text: generated, or taken over from a data set.",
        absent="The text was never asked for; a reply without text is a row with a null text.",
        key=("response_id",),
        columns=(*_RESPONSE_COLUMNS, "toward_persona_id"),
        nullable=_RESPONSE_NULLABLE | {"request_key", "response_model", "toward_persona_id"},
        foreign={
            "prompt_id": PROMPT,
            "parent_response_id": PAIR_RESPONSE + OPENING_RESPONSE,
            "toward_persona_id": PERSONA,
        },
    ),
    Table(
        name="pool_responses",
        grain="One row is a base response, a revision of one, or another sample like one.",
        absent="The text was never asked for; a reply without text is a row with a null text.",
        key=("response_id",),
        columns=(*_RESPONSE_COLUMNS, *_COST),
        nullable=_RESPONSE_NULLABLE | frozenset(_COST),
        foreign={"prompt_id": PROMPT, "parent_response_id": ANY_RESPONSE},
    ),
    Table(
        name="pairs",
        grain="One row is one pair of responses (A, B) to one prompt.",
        absent="The prompt has no pair: one of its responses has no text, or both have the same.",
        key=("pair_id",),
        columns=("pair_id", "prompt_id", "response_a_id", "response_b_id"),
        foreign={
            "prompt_id": PROMPT,
            "response_a_id": PAIR_RESPONSE,
            "response_b_id": PAIR_RESPONSE,
        },
    ),
    Table(
        name="answers",
        grain="One row is one answer of a real user to one pair, as it was handed in.",
        absent="The user did not answer, or both responses have the same text.",
        key=("answer_row",),
        columns=(
            "answer_row", "persona_id", "pair_id", "answer_prob", "answer_weight", "answered_at",
            "is_swapped",
        ),
        nullable=frozenset({"answered_at"}),
        foreign={"persona_id": PERSONA, "pair_id": PAIR},
    ),
    Table(
        name="design",
        grain="One row is one cell that is to be judged: persona and pair.",
        absent="The persona is not asked about the pair.",
        key=("persona_id", "pair_id"),
        columns=("persona_id", "pair_id"),
        foreign={"persona_id": PERSONA, "pair_id": PAIR},
    ),
    Table(
        name="judgments",
        grain="One row is one answer of the judge: persona, pair, presentation order, repeat.",
        absent="The judge was not asked; an answer without a verdict is a row with its reason.",
        key=("persona_id", "pair_id", "presentation_order", "repeat"),
        columns=(
            "persona_id", "pair_id", "presentation_order", "repeat", "request_key", "judge_model",
            "verdict", "is_exact_form", "unparsed_reason", "prefers_a_prob", "prob_origin",
            "a_low_prob", "a_high_prob", "reply_text",
        ),
        nullable=frozenset({
            "verdict", "unparsed_reason", "prefers_a_prob", "prob_origin", "a_low_prob",
            "a_high_prob", "reply_text",
        }),
        foreign={"persona_id": PERSONA, "pair_id": PAIR},
        one_null=(
            ("verdict", "unparsed_reason"),
            ("prefers_a_prob", "unparsed_reason"),
            ("prob_origin", "unparsed_reason"),
        ),
    ),
    Table(
        name="preferences",
        grain="One row is one cell of the preference matrix: persona and pair.",
        absent="The judge was not asked about the cell.",
        key=("persona_id", "pair_id"),
        columns=("persona_id", "pair_id", "preference_prob", "n_valid", "n_asked", "is_tie"),
        nullable=frozenset({"preference_prob"}),
        foreign={"persona_id": PERSONA, "pair_id": PAIR},
    ),
    Table(
        name="judge_audit",
        grain="One row is the judge's record on one slice of the judgments.",
        absent="The slice holds no judgments.",
        key=("slice_kind", "slice_id"),
        columns=(
            "slice_kind", "slice_id", "n_judgments", "n_exact", "n_tolerated", "n_unparsed",
            "unparsed_share", "n_refused", "n_complete", "n_consistent", "consistent_share",
            "first_share", "first_share_low", "first_share_high", "position_bias_logit",
            "position_bias_low_logit", "position_bias_high_logit", "longer_share",
        ),
        nullable=frozenset({
            "unparsed_share", "consistent_share", "first_share", "first_share_low",
            "first_share_high", "position_bias_logit", "position_bias_low_logit",
            "position_bias_high_logit", "longer_share",
        }),
    ),
    Table(
        name="check_judgments",
        grain="One row is one answer to a question that checks a judge; none is trained on.",
        absent="The question was not asked.",
        key=("check_kind", "persona_id", "item_id", "presentation_order", "repeat"),
        columns=(
            "check_kind", "persona_id", "item_id", "presentation_order", "repeat",
            "shown_persona_id", "request_key", "judge_model", "verdict", "is_exact_form",
            "unparsed_reason", "certainty", "reply_text",
        ),
        nullable=frozenset(
            {"shown_persona_id", "verdict", "unparsed_reason", "certainty", "reply_text"}
        ),
        foreign={"persona_id": PERSONA, "shown_persona_id": PERSONA},
        one_null=(("verdict", "unparsed_reason"),),
    ),
    Table(
        name="judge_checks",
        grain="One row is what one check says of the judge, overall or by a band of certainty.",
        absent="The check was not asked for, or had nothing to ask.",
        key=("check_kind", "slice_id"),
        columns=(
            "check_kind", "slice_id", "n_judgments", "n_unparsed", "n_compared",
            "agreement_share", "agreement_low", "agreement_high", "kappa", "alpha",
            "first_share", "first_share_low", "first_share_high", "margin_correlation",
            "subspace_cosine",
        ),
        nullable=frozenset({
            "agreement_share", "agreement_low", "agreement_high", "kappa", "alpha", "first_share",
            "first_share_low", "first_share_high", "margin_correlation", "subspace_cosine",
        }),
    ),
    Table(
        name="splits",
        grain="One row is the side of one persona or one pair.",
        absent="The persona or pair takes no part in training or measurement.",
        key=("entity_kind", "entity_id"),
        columns=("entity_kind", "entity_id", "side"),
    ),
    Table(
        name="split_facts",
        grain="One row is one count about real users' data and how they could be split.",
        absent="The count does not apply.",
        key=("fact",),
        columns=("fact", "n_counted"),
    ),
    Table(
        name="embeddings",
        grain="One row is the encoder's vector of one response to its prompt.",
        absent="The response has no text, so there is nothing to encode.",
        key=("response_id",),
        columns=("response_id", "embedding"),
        foreign={"response_id": PAIR_RESPONSE},
    ),
    Table(
        name="text_features",
        grain="One row is the features of form of one response.",
        absent="The flow looks at no form.",
        key=("response_id",),
        columns=("response_id", "text_features"),
        foreign={"response_id": PAIR_RESPONSE},
    ),
    Table(
        name="pool_embeddings",
        grain="One row is the encoder's vector of one pool response to its prompt.",
        absent="The response has no text, so there is nothing to encode.",
        key=("response_id",),
        columns=("response_id", "embedding"),
        foreign={"response_id": POOL_RESPONSE},
    ),
    Table(
        name="backbones",
        grain="One row is one encoder trained on the preferences; its files lie beside the rows.",
        absent="The encoder was left as it is.",
        key=("encoder",),
        columns=(
            "encoder", "n_steps", "n_passes", "train_nll", "start_validation_nll",
            "validation_nll",
        ),
        nullable=frozenset({"start_validation_nll", "validation_nll"}),
    ),
    Table(
        name="rank_curve",
        grain="One row is one number of base rewards and what the answers say for it.",
        absent="The number is larger than any that was looked at.",
        key=("n_base_rewards",),
        columns=(
            "n_base_rewards", "singular_value", "noise_edge", "log_likelihood_mean",
            "log_likelihood_low", "log_likelihood_high", "is_spectrum_choice",
            "is_likelihood_choice", "is_used",
        ),
        nullable=frozenset({"log_likelihood_mean", "log_likelihood_low", "log_likelihood_high"}),
    ),
    Table(
        name="models",
        grain="One row is one trained model; its weights are the file beside the rows.",
        absent="The method was not trained, or trains nothing.",
        key=("method",),
        columns=(
            "method", "n_base_rewards", "embedding_width", "encoder", "file_name", "file_sha256",
        ),
    ),
    Table(
        name="base_rewards",
        grain="One row is the base rewards of one response.",
        absent="The response has no embedding.",
        key=("response_id",),
        columns=("response_id", "base_rewards"),
        foreign={"response_id": ANY_RESPONSE},
    ),
    Table(
        name="user_weights",
        grain="One row is the weights of one user seen in training.",
        absent="The user is new, so training never saw it.",
        key=("persona_id",),
        columns=("persona_id", "weights"),
        foreign={"persona_id": PERSONA},
    ),
    Table(
        name="base_reward_facts",
        grain="One row is one base reward: what it explains and how users weigh it.",
        absent="The model has fewer base rewards.",
        key=("base_reward",),
        columns=("base_reward", "explained_share", "weight_mean", "n_users"),
    ),
    Table(
        name="base_reward_examples",
        grain="One row is one response near an end of a base reward's order.",
        absent="The response is not among the first few at that end.",
        key=("base_reward", "end", "place"),
        columns=("base_reward", "end", "place", "response_id", "deviation_logit"),
        foreign={"response_id": PAIR_RESPONSE},
    ),
    Table(
        name="trait_correlations",
        grain="One row is how users' weights on one base reward go with one true trait.",
        absent="The users' true traits are not known.",
        key=("base_reward", "attribute"),
        columns=("base_reward", "attribute", "correlation", "n_users"),
        nullable=frozenset({"correlation"}),
    ),
    Table(
        name="base_reward_labels",
        grain="One row is one model's proposal of what a base reward is about.",
        absent="The model was not asked; a reply without a label is a row with its reason.",
        key=("base_reward",),
        columns=(
            "base_reward", "request_key", "label_model", "label", "unparsed_reason", "reply_text",
        ),
        nullable=frozenset({"label", "unparsed_reason", "reply_text"}),
        one_null=(("label", "unparsed_reason"),),
    ),
    Table(
        name="alignment",
        grain="One row is the map of a retrained model onto the basis of an earlier one.",
        absent="The model keeps a basis of its own.",
        key=("aligned_to_version",),
        columns=(
            "aligned_to_version", "is_same_encoder", "n_shared_pairs", "n_users",
            "alignment_error_share", "changed_users_share", "changed_cells_share", "order_tau",
        ),
        nullable=frozenset({"order_tau"}),
    ),
    Table(
        name="adapted_weights",
        grain="One row is the weights of one new user by one method after some answers.",
        absent="The user had fewer answers to give, or the method does not adapt.",
        key=("persona_id", "method", "n_answers"),
        columns=("persona_id", "method", "n_answers", "weights"),
        foreign={"persona_id": PERSONA},
    ),
    Table(
        name="questions",
        grain="One row is one question put to one new user, in order.",
        absent="The interview ended before this step.",
        key=("persona_id", "step"),
        columns=("persona_id", "step", "pair_id", "rule", "rule_score", "answer_prob"),
        nullable=frozenset({"rule_score"}),
        foreign={"persona_id": PERSONA, "pair_id": PAIR},
    ),
    Table(
        name="auc",
        grain="One row is the AUC of one user by one method after some answers.",
        absent="The user is not a test user, or the method has no result for that many answers.",
        key=("persona_id", "method", "n_answers"),
        columns=("persona_id", "method", "n_answers", "auc", "n_pairs"),
        nullable=frozenset({"auc"}),
        foreign={"persona_id": PERSONA},
    ),
    Table(
        name="auc_means",
        grain="One row is the mean AUC over users of one method after some answers.",
        absent="The method was not measured with that number of answers.",
        key=("method", "n_answers"),
        columns=("method", "n_answers", "auc_mean", "auc_low", "auc_high", "n_users"),
        nullable=frozenset({"auc_mean", "auc_low", "auc_high"}),
    ),
    Table(
        name="pair_accuracy",
        grain="One row is how often one method ranks one user's test pairs as the user did.",
        absent="The user has no test pairs, or fewer answers to learn from.",
        key=("persona_id", "method", "n_answers"),
        columns=("persona_id", "method", "n_answers", "right_share", "auc", "n_pairs"),
        nullable=frozenset({"auc"}),
        foreign={"persona_id": PERSONA},
    ),
    Table(
        name="accuracy_means",
        grain="One row is the pair accuracy of one method over all test pairs after some answers.",
        absent="The method was not measured with that number of answers.",
        key=("method", "n_answers"),
        columns=(
            "method", "n_answers", "accuracy_mean", "accuracy_low", "accuracy_high", "lead_mean",
            "lead_low", "lead_high", "auc_mean", "n_users", "n_pairs",
        ),
        nullable=frozenset({
            "accuracy_mean", "accuracy_low", "accuracy_high", "lead_mean", "lead_low", "lead_high",
            "auc_mean",
        }),
    ),
    *WIN_TABLES,
    Table(
        name="data_checks",
        grain="One row is one check of one dataset of a run.",
        absent="The dataset came later, or there is no earlier version to compare with.",
        key=("checked_dataset", "check_name", "checked_columns"),
        columns=(
            "checked_dataset", "checked_version", "check_name", "checked_columns", "outcome",
            "n_checked", "n_faulty", "faulty_rows", "value", "previous_value", "tolerance",
            "previous_version",
        ),
        nullable=frozenset(
            {"faulty_rows", "value", "previous_value", "tolerance", "previous_version"}
        ),
    ),
    Table(
        name="benchmark_cells",
        grain="One row is the AUC of one new user by one arm on one seed after some answers.",
        absent="The arm was not asked for, or there are not as many pairs to answer about.",
        key=("arm", "seed", "persona_id", "n_answers"),
        columns=(
            "arm_group", "arm", "seed", "persona_id", "n_answers", "auc", "cell_sha256",
        ),
        nullable=frozenset({"auc"}),
    ),
    Table(
        name="benchmark_means",
        grain="One row is the mean AUC over users and seeds of one arm after some answers.",
        absent="The arm was not measured with that number of answers.",
        key=("arm", "n_answers"),
        columns=(
            "arm_group", "arm", "n_answers", "n_base_rewards", "n_labels", "auc_mean", "auc_low",
            "auc_high", "gap_mean", "gap_low", "gap_high", "seed_spread", "n_users", "n_seeds",
        ),
        nullable=frozenset({
            "n_base_rewards", "n_labels", "auc_mean", "auc_low", "auc_high", "gap_mean",
            "gap_low", "gap_high", "seed_spread",
        }),
    ),
    Table(
        name="report",
        grain="One row is one number that the report prints.",
        absent="The report does not print that number.",
        key=("figure", "key"),
        columns=("figure", "key", "value", "low", "high"),
        nullable=frozenset({"value", "low", "high"}),
    ),
)  # fmt: skip

TABLES: dict[str, Table] = {table.name: table for table in _DECLARED}


def table_named(name: str) -> Table:
    """Look a table up.

    Raises:
        DatasetMissing: There is no such table.
    """
    if name not in TABLES:
        raise DatasetMissing(
            f"dataset {name!r} is not known; expected one of {', '.join(TABLES)}; check the name"
        )
    return TABLES[name]
