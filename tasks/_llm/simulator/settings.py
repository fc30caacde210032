"""The simulator's parameters, all known, so that measurements can be compared with the truth.

It reads no environment variable and decides nothing about how answers are made.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from typing import Any

from prompts.traits import TRAITS
from tasks._llm.simulator.errors import SettingsInvalid
from tasks._llm.simulator.options import (
    BatchOptions,
    FaultOptions,
    QuirkOptions,
    check_integer,
    check_number,
    options_from,
    setting_invalid,
)

# Everything that words an answer or a verdict. A change in any of them changes the fingerprint,
# and with it the endpoint's name in every request key.
_ANSWER_SOURCES = (
    "draws.py",
    "judge.py",
    "labeling.py",
    "lexicon.toml",
    "messages.py",
    "phrases.py",
    "phrases.toml",
    "rating.py",
    "responder.py",
    "restyle.py",
    "style.py",
    "tastes.py",
    "topics.py",
    "wishes.py",
)
# Quirks change answers where there are any; see `fingerprint`.
_NOT_ANSWER_CHANGING = (
    "latency_s",
    "api_key",
    "requests_per_s",
    "burst_requests",
    "is_counting",
    "faults",
    "batch",
    "quirks",
)
_MAX_LATENCY_S = 600.0
_OPTIONS: Mapping[str, type] = {
    "faults": FaultOptions,
    "batch": BatchOptions,
    "quirks": QuirkOptions,
}


@dataclass(frozen=True)
class SimulatorSettings:
    """What the simulated responder and judge do.

    The judge chooses the first answer with probability
    logistic((u_first − u_second) / noise_scale + position_bias_logit).

    Attributes:
        seed: Seed of every draw; the draws also depend on the request.
        noise_scale: Scale of the logistic noise on the difference of utilities (≥ 0). The
            utility of an answer is a sum of style scores in [−1, 1]. Zero makes the better
            answer win always, whatever the bias.
        position_bias_logit: Logit by which the first answer is favored (either sign).
        sloppy_rate: Share of the usable verdicts that are not in the exact form, in [0, 1].
        off_menu_rate: Share of all replies without a usable verdict, in [0, 1].
        common_taste: Weight of the taste that all personas share (≥ 0).
        latency_s: Seconds that a reply is held back; changes no answer.
        api_key: The key a client must send; empty accepts any. Changes no answer.
        requests_per_s: Rate limit that is enforced; 0 for none. Changes no answer.
        burst_requests: Requests allowed at once under that limit; 0 for one second's worth.
        is_counting: Whether requests are counted for ``GET /simulator/served``; always so with
            faults, which need the counts. Off, a server keeps nothing between requests.
        faults: Faults on purpose; a mapping will do. Changes no answer.
        batch: How the Batches endpoint behaves; a mapping will do. Changes no answer.
        quirks: What is passed over without a word; a mapping will do.

    Raises:
        SettingsInvalid: If a value has the wrong type or is out of range.
    """

    seed: int = 0
    noise_scale: float = 0.3
    position_bias_logit: float = 0.35
    sloppy_rate: float = 0.03
    off_menu_rate: float = 0.01
    common_taste: float = 0.3
    latency_s: float = 0.0
    api_key: str = ""
    requests_per_s: float = 0.0
    burst_requests: int = 0
    is_counting: bool = False
    faults: FaultOptions = field(default_factory=FaultOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    quirks: QuirkOptions = field(default_factory=QuirkOptions)

    def __post_init__(self) -> None:
        check_integer(self, "seed", None)
        check_number(self, "noise_scale", 0.0, math.inf)
        check_number(self, "position_bias_logit", -math.inf, math.inf)
        check_number(self, "sloppy_rate", 0.0, 1.0)
        check_number(self, "off_menu_rate", 0.0, 1.0)
        check_number(self, "common_taste", 0.0, math.inf)
        check_number(self, "latency_s", 0.0, _MAX_LATENCY_S)
        check_number(self, "requests_per_s", 0.0, math.inf)
        check_integer(self, "burst_requests", 0)
        if not isinstance(self.is_counting, bool):
            raise setting_invalid("is_counting", self.is_counting, "true or false")
        if not isinstance(self.api_key, str):
            raise setting_invalid("api_key", "a value that is not text", "a text, empty for none")
        for name, kind in _OPTIONS.items():
            object.__setattr__(self, name, options_from(kind, name, getattr(self, name)))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "SimulatorSettings":
        """Build settings from named values, such as a parsed JSON object.

        Raises:
            SettingsInvalid: If a name is unknown or a value is not allowed.
        """
        known = [one.name for one in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise SettingsInvalid(
                f"simulator settings: unknown name {unknown[0]!r}, expected some of "
                f"{', '.join(known)}; correct the name"
            )
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> "SimulatorSettings":
        """Build settings from a JSON object.

        Raises:
            SettingsInvalid: If the text is no JSON object, or its content is not allowed.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsInvalid(
                f"simulator settings: not JSON ({error.msg} at character {error.pos}), expected "
                'an object such as {"seed": 1}; quote the whole object for the shell'
            ) from error
        if not isinstance(values, dict):
            raise SettingsInvalid(
                f"simulator settings: found a JSON {type(values).__name__}, expected an object "
                'such as {"seed": 1}; put the values in braces'
            )
        return cls.from_mapping(values)

    def to_json(self) -> str:
        """Return the settings as JSON that `from_json` takes; it holds the API key."""
        return json.dumps(asdict(self), sort_keys=True)

    def fingerprint(self) -> str:
        """Return 12 hex digits that change whenever an answer could.

        It is a SHA-256 over the settings that change answers, the names of the traits and the
        bytes of the files that make answers. Latency, key, limits, faults and batches stay out.
        """
        answer_settings = {
            name: value for name, value in asdict(self).items() if name not in _NOT_ANSWER_CHANGING
        }
        if self.quirks != QuirkOptions():
            answer_settings["quirks"] = asdict(self.quirks)
        header = json.dumps([answer_settings, list(TRAITS)], sort_keys=True)
        digest = hashlib.sha256(header.encode())
        package = resources.files("tasks._llm.simulator")
        for name in _ANSWER_SOURCES:
            digest.update(hashlib.sha256((package / name).read_bytes()).digest())
        return digest.hexdigest()[:12]
