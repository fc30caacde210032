"""One spelling for every JSON value, so that equal values have equal hashes. It reads no files."""

import hashlib
import json

from warehouse.errors import WarehouseError


def canonical_json(value: object) -> bytes:
    """Spell a JSON value in the one way that is hashed.

    Keys are sorted by code point, nothing is indented, floats are written by ``repr`` (the
    shortest text that reads back to the same number), text is UTF-8 and not escaped.

    Args:
        value: None, bool, int, float, str, or lists, tuples and string-keyed dicts of these.

    Returns:
        The UTF-8 bytes. Two values give the same bytes only if they are equal as JSON, an
        integer and a float being different things.

    Raises:
        WarehouseError: The value holds NaN, an infinity, a key that is not text, text that is
            not Unicode, or an object JSON has no word for.
    """
    _refuse_ambiguous(value, "value")
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def sha256_json(value: object) -> str:
    """Hash a JSON value's canonical spelling; 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _refuse_ambiguous(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            # json.dumps would write 1 and "1" as the same key.
            if type(key) is not str:
                raise WarehouseError(
                    f"{where}: a key is {key!r}, expected text; use string keys in anything hashed"
                )
            _refuse_ambiguous(key, where)
            _refuse_ambiguous(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_ambiguous(item, f"{where}[{index}]")
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise WarehouseError(
                f"{where}: {value!r} is not valid Unicode, expected text; remove the lone surrogate"
            ) from None
    elif type(value) is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise WarehouseError(
                f"{where}: found {value!r}, expected a finite number; correct the setting"
            )
    elif not (value is None or type(value) in (bool, int)):
        # Subclasses (numpy scalars, enums) may print differently from release to release.
        raise WarehouseError(
            f"{where}: found a {type(value).__name__}, expected None, bool, int, float, str, list "
            "or dict; convert it first"
        )
