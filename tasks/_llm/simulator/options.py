"""What the simulator does besides answering: faults, batches, and fields it passes over.

It holds values and checks them; `faults`, `batches` and `server` act on them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from tasks._llm.simulator.errors import SettingsInvalid

T = TypeVar("T")

# Each is the probability of a fault; the order is that of the draw.
FAULTS = (
    "rate_limited_s",
    "rate_limited_ms",
    "rate_limited_bare",
    "quota",
    "status_500",
    "status_502",
    "status_503",
    "reset",
    "hang",
    "slow_body",
    "truncated_json",
    "cut_body",
    "html",
    "garbage",
    "no_choices",
    "no_usage",
    "huge",
    "bad_utf8",
)
IGNORABLE = (
    "logprobs",
    "n",
    "seed",
    "temperature",
    "usage",
    "batch",
    "rate_headers",
    "models",
)


def setting_invalid(name: str, found: object, expected: str) -> SettingsInvalid:
    """Return the one-line error for a setting."""
    return SettingsInvalid(
        f"simulator setting {name}: found {found!r}, expected {expected}; correct the value"
    )


def check_number(owner: object, name: str, low: float, high: float, prefix: str = "") -> None:
    """Check a number of a frozen dataclass and make it a float, so that 1 and 1.0 are one setting.

    Raises:
        SettingsInvalid: If it is no finite number in [low, high].
    """
    value = getattr(owner, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise setting_invalid(prefix + name, value, _range_text(low, high))
    object.__setattr__(owner, name, float(value))


def check_integer(owner: object, name: str, low: int | None, prefix: str = "") -> None:
    """Check an integer of a frozen dataclass.

    Raises:
        SettingsInvalid: If it is no integer, or smaller than ``low``.
    """
    value = getattr(owner, name)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or (low is not None and value < low):
        raise setting_invalid(
            prefix + name, value, "an integer" + ("" if low is None else f" of at least {low}")
        )


def options_from(kind: type[T], name: str, value: object) -> T:
    """Return options of a kind, built from a mapping where they are one.

    Raises:
        SettingsInvalid: If the value is neither, or a name in it is unknown.
    """
    if isinstance(value, kind):
        return value
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(value, Mapping):
        raise setting_invalid(name, value, f"an object with some of {', '.join(known)}")
    unknown = sorted(str(one) for one in value if one not in known)
    if unknown:
        raise setting_invalid(f"{name}.{unknown[0]}", value[unknown[0]], "one of " + str(known))
    return kind(**value)


@dataclass(frozen=True)
class FaultOptions:
    """Faults on purpose, each with its probability per arrival of a chat request.

    A draw derives from ``seed``, the request and how often it has arrived, so a run can be
    repeated and a retried request is answered in the end.

    Attributes:
        seed: Seed of the draws.
        most_per_request: A request that has met this many faults meets no more.
        retry_after_s: What the refusals with a pause ask for.
        hang_s: How long a hanging or trickling reply takes; it is complete at the end.
        huge_bytes: Size of what pads a huge reply.
        rate_limited_s: 429 with ``Retry-After``.
        rate_limited_ms: 429 with ``retry-after-ms``.
        rate_limited_bare: 429 without any header about it.
        quota: 429 ``insufficient_quota``.
        status_500: 500 with an error body.
        status_502: 502 with a proxy's page.
        status_503: 503 with an error body.
        reset: The connection is reset before any answer.
        hang: Nothing comes for ``hang_s``.
        slow_body: The body trickles over ``hang_s``.
        truncated_json: 200 with half of the JSON.
        cut_body: The connection ends in the middle of the body.
        html: 200 with an HTML page.
        garbage: 200 with bytes that are no text.
        no_choices: 200 with an empty list of choices.
        no_usage: The right answer without its usage.
        huge: The right answer with ``huge_bytes`` beside it.
        bad_utf8: The right answer with invalid UTF-8 beside it.
    """

    seed: int = 0
    most_per_request: int = 4
    retry_after_s: float = 1.0
    hang_s: float = 60.0
    huge_bytes: int = 50_000_000
    rate_limited_s: float = 0.0
    rate_limited_ms: float = 0.0
    rate_limited_bare: float = 0.0
    quota: float = 0.0
    status_500: float = 0.0
    status_502: float = 0.0
    status_503: float = 0.0
    reset: float = 0.0
    hang: float = 0.0
    slow_body: float = 0.0
    truncated_json: float = 0.0
    cut_body: float = 0.0
    html: float = 0.0
    garbage: float = 0.0
    no_choices: float = 0.0
    no_usage: float = 0.0
    huge: float = 0.0
    bad_utf8: float = 0.0

    def __post_init__(self) -> None:
        check_integer(self, "seed", None, "faults.")
        check_integer(self, "most_per_request", 0, "faults.")
        check_integer(self, "huge_bytes", 0, "faults.")
        check_number(self, "retry_after_s", 0.0, 3600.0, "faults.")
        check_number(self, "hang_s", 0.0, 3600.0, "faults.")
        for name in FAULTS:
            check_number(self, name, 0.0, 1.0, "faults.")
        if self.total > 1.0 + 1e-9:
            raise setting_invalid("faults", self.total, "probabilities with a sum of at most 1")

    @property
    def total(self) -> float:
        """The probability that an arrival meets any fault."""
        return math.fsum(getattr(self, name) for name in FAULTS)


@dataclass(frozen=True)
class BatchOptions:
    """How the Batches endpoint behaves.

    Attributes:
        seed: Seed of the draws.
        duration_s: Time from the creation of a batch to its end.
        expire_share: Probability that a batch expires.
        finished_share: Share of its lines that an expiring batch has answered.
        line_error_share: Probability that a line ends in the error file with a 500.
        missing_share: Probability that a line is in neither file.
        most_per_line: A line that was lost this often for any of these reasons is answered.
        max_lines: Lines that a file may have.
        max_open_lines: Lines that may be enqueued in all; 0 for any number.
        create_hang_s: The reply to a creation is held back this long; the batch exists already.
    """

    seed: int = 0
    duration_s: float = 0.5
    expire_share: float = 0.0
    finished_share: float = 0.5
    line_error_share: float = 0.0
    missing_share: float = 0.0
    most_per_line: int = 2
    max_lines: int = 50_000
    max_open_lines: int = 0
    create_hang_s: float = 0.0

    def __post_init__(self) -> None:
        check_integer(self, "seed", None, "batch.")
        check_integer(self, "most_per_line", 0, "batch.")
        check_integer(self, "max_lines", 1, "batch.")
        check_integer(self, "max_open_lines", 0, "batch.")
        for name in ("duration_s", "create_hang_s"):
            check_number(self, name, 0.0, 86_400.0, "batch.")
        for name in ("expire_share", "finished_share", "line_error_share", "missing_share"):
            check_number(self, name, 0.0, 1.0, "batch.")


@dataclass(frozen=True)
class QuirkOptions:
    """How the endpoint differs from what it claims; for the tests of a probe.

    Attributes:
        ignores: What is passed over without a word, some of `IGNORABLE`. Without "temperature"
            equal requests get equal answers; with it they do not, at any temperature.
        has_json_mode: Whether a ``response_format`` that asks for JSON gets JSON.
        shutdown_date: ISO date that the list of models carries, or empty.
    """

    ignores: tuple[str, ...] = ()
    has_json_mode: bool = False
    shutdown_date: str = ""

    def __post_init__(self) -> None:
        is_list = isinstance(self.ignores, list | tuple)
        unknown = [one for one in self.ignores if one not in IGNORABLE] if is_list else ["text"]
        if unknown:
            raise setting_invalid("quirks.ignores", self.ignores, f"a list of some of {IGNORABLE}")
        object.__setattr__(self, "ignores", tuple(self.ignores))
        if not isinstance(self.has_json_mode, bool):
            raise setting_invalid("quirks.has_json_mode", self.has_json_mode, "true or false")
        if not isinstance(self.shutdown_date, str):
            raise setting_invalid("quirks.shutdown_date", self.shutdown_date, "an ISO date as text")


def _range_text(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number"
    if math.isinf(high):
        return f"a number of at least {low:g}"
    return f"a number from {low:g} to {high:g}"
