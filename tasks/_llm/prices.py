"""What a call costs, by a dated table of list prices.

It never guesses: an unknown model has no price.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from tasks._llm.errors import PriceTableInvalid, clean_line

_PRICE_FIELDS = ("prompt", "cached_prompt", "completion", "batch_factor")
_DATE_SUFFIX = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")


class Price(NamedTuple):
    """List price of one model, US dollars per million tokens.

    Attributes:
        prompt: Tokens read.
        cached_prompt: Tokens read from the provider's prompt cache.
        completion: Tokens written.
        batch_factor: Multiplies the others in batch mode.
    """

    prompt: float
    cached_prompt: float
    completion: float
    batch_factor: float

    def cost_usd(
        self,
        prompt_tokens: int | None,
        completion_tokens: int | None,
        cached_tokens: int | None = None,
        *,
        is_batch: bool = False,
    ) -> float | None:
        """Cost of one call in US dollars.

        Args:
            prompt_tokens: All tokens read, cached ones included.
            completion_tokens: Tokens written.
            cached_tokens: The part of ``prompt_tokens`` that was cached; None counts as 0.
            is_batch: Whether the call went through the batch endpoint.

        Returns:
            The cost; None where a count that has a price is missing; 0.0 for a free model.
        """
        if not (self.prompt or self.cached_prompt or self.completion):
            return 0.0
        if prompt_tokens is None or completion_tokens is None:
            return None
        cached = min(cached_tokens or 0, prompt_tokens)
        per_million = (
            (prompt_tokens - cached) * self.prompt
            + cached * self.cached_prompt
            + completion_tokens * self.completion
        )
        return per_million * (self.batch_factor if is_batch else 1.0) / 1e6


@dataclass(frozen=True)
class PriceTable:
    """Prices by model name.

    Attributes:
        as_of: Date of the list prices, as the file states it.
        models: Price by name; a name may end in ``*``.
    """

    as_of: str
    models: Mapping[str, Price]

    def lookup(self, model: str) -> Price | None:
        """The price of a model: exact name, then the name without its date, then the longest ``*``.

        Returns:
            None where the table has none; `how_to_add` says what a user can do.
        """
        for name in (model, _DATE_SUFFIX.sub("", model)):
            if name in self.models:
                return self.models[name]
        stems = [n for n in self.models if n.endswith("*") and model.startswith(n[:-1])]
        return self.models[max(stems, key=len)] if stems else None

    def how_to_add(self, model: str) -> str:
        """One line that tells how to give the price of a model the table lacks."""
        return (
            f"Model {clean_line(model, 80)}: no price in the table of {self.as_of}; its cost is "
            f'unknown. Name a price file with [models."{clean_line(model, 80)}"] and prompt, '
            "cached_prompt, completion (US dollars per million tokens), batch_factor"
        )


def load_prices(override: Path | None = None) -> PriceTable:
    """The price table of this package, with the entries of a file laid over it.

    Args:
        override: TOML file of the same shape; its models replace or extend the built-in ones.

    Raises:
        PriceTableInvalid: the file is missing, is no TOML, or holds something else than prices.
    """
    text = resources.files("tasks._llm").joinpath("prices.toml").read_text(encoding="utf-8")
    table = _parse(text, "prices.toml")
    if override is None:
        return table
    try:
        own = _parse(override.read_text(encoding="utf-8"), str(override))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise PriceTableInvalid(
            f"Price file {override}: {reason}; expected a readable TOML file of prices"
        ) from None
    return PriceTable(f"{own.as_of} over {table.as_of}", {**table.models, **own.models})


def _parse(text: str, shown: str) -> PriceTable:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PriceTableInvalid(
            f"Price file {shown}: no valid TOML ({clean_line(str(error))}); correct the file"
        ) from None
    as_of, entries = data.get("as_of"), data.get("models")
    if not isinstance(as_of, str) or not isinstance(entries, dict):
        raise PriceTableInvalid(
            f"Price file {shown}: found the names {sorted(data)}; expected as_of with the date "
            'of the prices as text, and tables [models."NAME"]'
        )
    return PriceTable(as_of, {name: _price(entry, name, shown) for name, entry in entries.items()})


def _price(entry: object, name: str, shown: str) -> Price:
    values = entry if isinstance(entry, dict) else {}
    numbers = [values.get(field) for field in _PRICE_FIELDS]
    usable = [
        float(number)
        for number in numbers
        if isinstance(number, int | float)
        and not isinstance(number, bool)
        and 0 <= number < math.inf
    ]
    if len(usable) != len(_PRICE_FIELDS) or set(values) != set(_PRICE_FIELDS):
        raise PriceTableInvalid(
            f"Price file {shown}, model {clean_line(name, 80)}: found {clean_line(str(entry))}; "
            f"expected the numbers {', '.join(_PRICE_FIELDS)}, each at least 0"
        )
    return Price(*usable)
