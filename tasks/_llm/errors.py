"""Every way the completion engine stops, one line for a person each.

It decides nothing about retries.
"""

import unicodedata

MESSAGE_LIMIT = 240


class LlmError(Exception):
    """Base of this room's errors; the message is one line: object, found, expected, remedy.

    Attributes:
        exit_code: Process exit status; 2 = the request was wrong, 1 = the run failed.
    """

    exit_code: int = 2


class RequestInvalid(LlmError):
    """A request or a setting that could never be sent as meant."""


class EndpointUnreachable(LlmError):
    """Nothing that speaks this protocol answers at the base URL."""


class AuthenticationRejected(LlmError):
    """The endpoint does not accept the key, or does not allow it what is asked."""


class ModelUnknown(LlmError):
    """The endpoint does not serve the model."""


class PriceUnknown(LlmError):
    """A money cap was asked for, and the price of the model is not known."""


class PriceTableInvalid(LlmError):
    """A price file that cannot be read as one."""


class QuotaExhausted(LlmError):
    """The account has no credit left; waiting does not help."""

    exit_code = 1


class CallFailed(LlmError):
    """A call that was refused, or that kept failing until its retries were used up."""

    exit_code = 1


class BudgetReached(LlmError):
    """A hard cap of calls or money is used up; everything bought so far is stored."""

    exit_code = 1


class CallInBatch(LlmError):
    """A call is wanted at once that an open batch may be answering; sent, it could cost twice."""

    @classmethod
    def of(cls, key: str, batch: str) -> "CallInBatch":
        """The line for one call and the batch it is in."""
        return cls(
            f"Call {key[:12]}: it is in batch {batch}, which is open; sent now it could be paid "
            "twice; run with --mode batch to collect it, or give the batch up with `pref batch "
            f"forget {batch}`"
        )


class EngineStopped(LlmError):
    """The engine was closed, or its caller interrupted, while calls were waiting."""

    exit_code = 1


def clean_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Text from outside, made fit for one line of a terminal.

    Args:
        text: Anything a server or the operating system said.
        limit: Longest result, in characters.

    Returns:
        The text without control, format, surrogate or unassigned characters (Unicode category
        C), with runs of white space made one space, cut at ``limit`` with "..." as the sign.
    """
    # Cut first: a reply of 50 MB must not be walked character by character.
    visible = "".join(
        " " if char.isspace() else char
        for char in text[: limit * 8]
        if char.isspace() or not unicodedata.category(char).startswith("C")
    )
    line = " ".join(visible.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
