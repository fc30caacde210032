"""What a probe of an endpoint found, as data and as lines for people.

It sends nothing.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from tasks._llm.errors import LlmError, clean_line

ABILITIES = (
    "answers",
    "judge_parses",
    "usage",
    "logprobs",
    "verdict_logprobs",
    "n",
    "seed",
    "repeatable",
    "response_format",
    "max_tokens",
    "batch",
    "rate_headers",
    "models",
)


class AbilityMissing(LlmError):
    """An endpoint lacks what the run needs."""


class Standing(StrEnum):
    """How an endpoint stands to one ability."""

    HONORED = "honored"
    IGNORED = "ignored"
    REFUSED = "refused"
    UNCLEAR = "unclear"


class Finding(NamedTuple):
    """One ability of an endpoint.

    Attributes:
        name: One of `ABILITIES`.
        standing: How the endpoint stands to it.
        evidence: What was seen, one line.
    """

    name: str
    standing: Standing
    evidence: str


class ProbeResult(NamedTuple):
    """What a probe found.

    Attributes:
        endpoint_url: Where, without credentials.
        model: Model that was asked.
        findings: One for each ability asked about, in the order of `ABILITIES`.
        shutdown_date: When the model ends, as the list of models states it; None where it does not.
        n_calls: Chat completions that were sent.
    """

    endpoint_url: str
    model: str
    findings: tuple[Finding, ...]
    shutdown_date: str | None
    n_calls: int

    def standing(self, name: str) -> Standing:
        """How the endpoint stands to an ability.

        Raises:
            KeyError: no such ability.
        """
        return {one.name: one.standing for one in self.findings}[name]

    def lacking(self, needed: Sequence[str]) -> list[Finding]:
        """Those of the needed abilities that are ignored or refused."""
        bad = (Standing.IGNORED, Standing.REFUSED)
        return [one for one in self.findings if one.name in needed and one.standing in bad]

    def require(self, needed: Sequence[str]) -> None:
        """Refuses a run that needs what the endpoint lacks.

        Raises:
            AbilityMissing: with one line that names what is lacking.
        """
        found = self.lacking(needed)
        if found:
            what = "; ".join(f"{one.name} is {one.standing} ({one.evidence})" for one in found)
            raise AbilityMissing(
                f"Model {clean_line(self.model, 80)} at {self.endpoint_url}: {what}; expected "
                f"{', '.join(one.name for one in found)} to be honored; choose another endpoint "
                "or a configuration that does not need it"
            )

    def lines(self) -> list[str]:
        """The result for people, one line an ability."""
        # Evidence is cleaned when it is found.
        shown = [f"{clean_line(self.model, 80)} at {self.endpoint_url}, {self.n_calls} calls"]
        shown += [f"{one.name:<18}{one.standing:<9}{one.evidence}" for one in self.findings]
        if self.shutdown_date is not None:
            shown.append(f"{'shutdown_date':<18}{'':<9}{self.shutdown_date}")
        return shown

    def as_json(self) -> dict[str, Any]:
        """The result for scripts."""
        return {
            "endpoint_url": self.endpoint_url,
            "model": self.model,
            "shutdown_date": self.shutdown_date,
            "n_calls": self.n_calls,
            "abilities": {
                one.name: {"standing": str(one.standing), "evidence": one.evidence}
                for one in self.findings
            },
        }
