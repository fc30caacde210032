"""JSON objects read strictly, key by key. It knows no key and opens no file."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from warehouse.errors import DatasetCorrupt

T = TypeVar("T")


@dataclass(frozen=True)
class JsonReader:
    """A JSON object read key by key, with one-line complaints that name file and key."""

    raw: dict[str, Any]
    where: str

    @classmethod
    def parse(cls, data: bytes, where: str) -> "JsonReader":
        """Parse bytes that must be one JSON object."""
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DatasetCorrupt(
                f"{where}: not readable as JSON ({error}), expected what this program wrote; "
                "restore the file or delete its folder and run again"
            ) from None
        if not isinstance(raw, dict):
            raise DatasetCorrupt(
                f"{where}: found a JSON {type(raw).__name__}, expected an object; restore the "
                "file or delete its folder and run again"
            )
        return cls(raw, where)

    def fault(self, found: str, expected: str) -> DatasetCorrupt:
        """Build the line for a value that cannot be right."""
        return DatasetCorrupt(
            f"{self.where}: {found}, expected {expected}; restore the file, or delete its folder "
            "and run again"
        )

    def expect_keys(self, names: set[str]) -> None:
        """Refuse missing and unknown keys together."""
        missing, unknown = sorted(names - set(self.raw)), sorted(set(self.raw) - names)
        found = [f"key {name!r} missing" for name in missing]
        found += [f"key {name!r} unknown" for name in unknown]
        if found:
            raise self.fault(", ".join(found), "exactly the keys of this release")

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """Take a text."""
        value = self._typed(name, str, "text")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.fault(f"{name} is {value!r}", f"the form {pattern.pattern}")
        return value

    def text_or_none(self, name: str) -> str | None:
        """Take a text or null."""
        return None if self.raw[name] is None else self.text(name)

    def count(self, name: str) -> int:
        """Take a whole number of zero or more."""
        value = self._typed(name, int, "a count")
        if isinstance(value, bool) or value < 0:
            raise self.fault(f"{name} is {value!r}", "a count")
        return value

    def amount_or_none(self, name: str) -> float | None:
        """Take a finite number of zero or more, or null."""
        value = self.raw[name]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e300:
            raise self.fault(f"{name} is {value!r}", "an amount")
        return float(value)

    def flag(self, name: str) -> bool:
        """Take true or false."""
        return self._typed(name, bool, "true or false")

    def moment(self, name: str) -> datetime:
        """Take a UTC time."""
        value = self.text(name)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise self.fault(f"{name} is {value!r}", "an ISO 8601 time") from None
        if moment.tzinfo is None:
            raise self.fault(f"{name} is {value!r}", "a time in UTC")
        return moment.astimezone(UTC)

    def mapping(self, name: str) -> dict[str, Any]:
        """Take an object."""
        return dict(self._typed(name, dict, "an object"))

    def text_mapping(self, name: str) -> dict[str, str]:
        """Take an object of texts."""
        value = self.mapping(name)
        if not all(isinstance(item, str) for item in value.values()):
            raise self.fault(f"{name} is {value!r}", "an object of texts")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Take a list of texts."""
        value = self._typed(name, list, "a list of texts")
        if not all(isinstance(item, str) for item in value):
            raise self.fault(f"{name} is {value!r}", "a list of texts")
        return tuple(value)

    def inner(self, name: str) -> "JsonReader":
        """Take an object as a reader of its own."""
        return JsonReader(self.mapping(name), f"{self.where} {name}")

    def each(self, name: str, build: Callable[["JsonReader"], T]) -> tuple[T, ...]:
        """Take a list of objects."""
        items = self._typed(name, list, "a list of objects")
        built = []
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                raise self.fault(f"{name}[{index}] is {item!r}", "an object")
            built.append(build(JsonReader(item, f"{self.where} {name}[{index}]")))
        return tuple(built)

    def _typed(self, name: str, kind: type[T], expected: str) -> T:
        value = self.raw[name]
        if not isinstance(value, kind):
            raise self.fault(f"{name} is {value!r}", expected)
        return value
