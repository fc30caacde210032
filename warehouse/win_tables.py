"""The datasets behind win rates: what was chosen, what judges said of it, and the rates."""

from warehouse.table import PERSONA, POOL_RESPONSE, PROMPT, Table

_CHOSEN = (*POOL_RESPONSE, "personal_responses.response_id")

WIN_TABLES = (
    Table(
        name="taste_summaries",
        grain="One row is what a model says of one user's taste after reading some answers.",
        absent="No summary was asked for, or the user had no answer without a tie.",
        key=("persona_id", "n_answers"),
        columns=(
            "persona_id", "n_answers", "summary_text", "finish_reason", "request_key",
            "response_model", "prompt_tokens", "completion_tokens", "cost_usd",
        ),
        nullable=frozenset({
            "summary_text", "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd",
        }),
        foreign={"persona_id": PERSONA},
    ),
    Table(
        name="personal_responses",
        grain="One row is one response written for one user, in place of a base response.",
        absent="The method was not asked for, or nothing is known of the user that it could tell.",
        key=("response_id",),
        columns=(
            "response_id", "method", "n_answers", "toward_persona_id", "prompt_id",
            "parent_response_id", "response_text", "finish_reason", "request_key",
            "response_model", "prompt_tokens", "completion_tokens", "cost_usd",
        ),
        nullable=frozenset({
            "response_text", "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd",
        }),
        foreign={
            "toward_persona_id": PERSONA,
            "prompt_id": PROMPT,
            "parent_response_id": POOL_RESPONSE,
        },
    ),
    Table(
        name="selections",
        grain="One row is the response one method picks for one user and prompt.",
        absent="The prompt has no pool, or the user has no weights by that method.",
        key=("persona_id", "method", "n_answers", "prompt_id"),
        columns=(
            "persona_id", "method", "n_answers", "prompt_id", "response_id", "base_response_id",
        ),
        foreign={
            "persona_id": PERSONA,
            "prompt_id": PROMPT,
            "response_id": _CHOSEN,
            "base_response_id": POOL_RESPONSE,
        },
    ),
    Table(
        name="win_judgments",
        grain="One row is one answer of a user's judge on a personalized and a base response.",
        absent="The judge was not asked: no method picked the response, or it is the base itself.",
        key=(
            "persona_id", "prompt_id", "response_id", "base_response_id", "presentation_order",
            "repeat",
        ),
        columns=(
            "persona_id", "prompt_id", "response_id", "base_response_id", "presentation_order",
            "repeat", "request_key", "judge_model", "verdict", "is_exact_form", "unparsed_reason",
            "prefers_personalized_prob", "prob_origin", "a_low_prob", "a_high_prob", "reply_text",
        ),
        nullable=frozenset({
            "verdict", "unparsed_reason", "prefers_personalized_prob", "prob_origin",
            "a_low_prob", "a_high_prob", "reply_text",
        }),
        foreign={
            "persona_id": PERSONA,
            "prompt_id": PROMPT,
            "response_id": _CHOSEN,
            "base_response_id": POOL_RESPONSE,
        },
        one_null=(
            ("verdict", "unparsed_reason"),
            ("prefers_personalized_prob", "unparsed_reason"),
        ),
    ),
    Table(
        name="win_check_judgments",
        grain="One row is one answer to a question that checks the judge of win rates.",
        absent="The check was not asked for, or the cell was not drawn.",
        key=(
            "check_kind", "persona_id", "prompt_id", "response_id", "presentation_order", "repeat",
        ),
        columns=(
            "check_kind", "persona_id", "prompt_id", "response_id", "presentation_order", "repeat",
            "base_response_id", "request_key", "judge_model", "verdict", "is_exact_form",
            "unparsed_reason", "prefers_personalized_prob", "prob_origin", "a_low_prob",
            "a_high_prob", "reply_text",
        ),
        nullable=frozenset({
            "verdict", "unparsed_reason", "prefers_personalized_prob", "prob_origin",
            "a_low_prob", "a_high_prob", "reply_text",
        }),
        foreign={
            "persona_id": PERSONA,
            "prompt_id": PROMPT,
            "response_id": _CHOSEN,
            "base_response_id": POOL_RESPONSE,
        },
        one_null=(
            ("verdict", "unparsed_reason"),
            ("prefers_personalized_prob", "unparsed_reason"),
        ),
    ),
    Table(
        name="win_rates",
        grain="One row is the win rate of one method over the base after some answers.",
        absent="The method picked no responses for that number of answers.",
        key=("method", "n_answers"),
        columns=(
            "method", "n_answers", "win_rate_mean", "win_rate_low", "win_rate_high", "n_users",
            "n_comparisons", "n_ties", "n_unparsed", "n_users_needed", "controlled_rate_mean",
            "controlled_rate_low", "controlled_rate_high", "length_effect_logit",
            "length_gap_mean", "win_rate_bound", "n_calls", "prompt_tokens", "completion_tokens",
            "cost_usd",
        ),
        nullable=frozenset({
            "win_rate_mean", "win_rate_low", "win_rate_high", "n_users_needed",
            "controlled_rate_mean", "controlled_rate_low", "controlled_rate_high",
            "length_effect_logit", "length_gap_mean", "win_rate_bound", "prompt_tokens",
            "completion_tokens", "cost_usd",
        }),
    ),
    Table(
        name="win_differences",
        grain="One row is the win rate of one method less that of another, same users and prompts.",
        absent="One of the two methods picked no responses for that number of answers.",
        key=("method", "other_method", "n_answers"),
        columns=(
            "method", "other_method", "n_answers", "difference_mean", "difference_low",
            "difference_high", "n_users", "n_comparisons",
        ),
        nullable=frozenset({"difference_mean", "difference_low", "difference_high"}),
    ),
    Table(
        name="win_checks",
        grain="One row is what one check says of the judge of win rates.",
        absent="The check was not asked for, or had nothing to ask.",
        key=("check_kind",),
        columns=(
            "check_kind", "judge_model", "n_judgments", "n_unparsed", "n_compared",
            "agreement_share", "agreement_low", "agreement_high", "kappa", "alpha", "first_share",
            "first_share_low", "first_share_high", "n_users", "n_comparisons", "win_rate_mean",
            "win_rate_low", "win_rate_high", "difference_mean", "difference_low",
            "difference_high",
        ),
        nullable=frozenset({
            "agreement_share", "agreement_low", "agreement_high", "kappa", "alpha", "first_share",
            "first_share_low", "first_share_high", "win_rate_mean", "win_rate_low",
            "win_rate_high", "difference_mean", "difference_low", "difference_high",
        }),
    ),
)  # fmt: skip
