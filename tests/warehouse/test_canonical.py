import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.canonical import canonical_json, sha256_json
from warehouse.errors import WarehouseError
from warehouse.manifest import dataset_version

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.integers() | FLOATS | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)
CONFIGS = st.dictionaries(TEXTS, VALUES, max_size=4)
VERSIONS = st.text("0123456789abcdef", min_size=12, max_size=12)
PARENTS = st.dictionaries(st.sampled_from(["prompts", "pairs", "personas"]), VERSIONS)


def shuffled(value: object, draw: st.DataObject) -> object:
    if isinstance(value, dict):
        keys = draw.draw(st.permutations(list(value)))
        return {key: shuffled(value[key], draw) for key in keys}
    if isinstance(value, list):
        return tuple(shuffled(item, draw) for item in value)
    return value


@given(VALUES, st.data())
def test_key_order_and_kind_of_sequence_leave_the_spelling_alone(
    value: object, data: st.DataObject
) -> None:
    assert canonical_json(shuffled(value, data)) == canonical_json(value)


@given(VALUES)
def test_reading_back_loses_nothing(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(FLOATS)
def test_every_bit_of_a_float_counts(value: float) -> None:
    back = json.loads(canonical_json(value))
    assert struct.pack("d", back) == struct.pack("d", value)
    assert canonical_json(math.nextafter(value, 0.0) + 0.0) != canonical_json(value) or value == 0.0


def test_spelling_is_fixed_for_all_time() -> None:
    value = {"b": [1, 1.0, True, None], "a": "é\n", "A": {"x": 1e22, "w": 0.1}}
    spelled = '{"A":{"w":0.1,"x":1e+22},"a":"é\\n","b":[1,1.0,true,null]}'
    assert canonical_json(value) == spelled.encode()


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, {"a": [math.nan]}, {1: "a"}, {None: 1}, {1, 2}, b"x", "\ud800"],
)
def test_what_json_cannot_tell_apart_is_refused_in_one_line(value: object) -> None:
    with pytest.raises(WarehouseError) as caught:
        canonical_json(value)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(CONFIGS, PARENTS, st.data())
def test_a_version_depends_on_inputs_and_not_on_their_order(
    config: dict[str, object], parents: dict[str, str], data: st.DataObject
) -> None:
    version = dataset_version("judge", "code", config, parents)
    again = dataset_version(
        "judge",
        "code",
        shuffled(config, data),  # type: ignore[arg-type]
        shuffled(parents, data),  # type: ignore[arg-type]
    )
    assert len(version) == 64
    assert version == again
    assert version != dataset_version("judged", "code", config, parents)
    assert version != dataset_version("judge", "code ", config, parents)
    assert version != dataset_version("judge", "code", {**config, "other": 1}, parents)
    assert version != dataset_version("judge", "code", config, {**parents, "splits": "0" * 12})


def test_an_integer_and_a_float_name_two_versions() -> None:
    assert dataset_version("a", "b", {"x": 1}, {}) != dataset_version("a", "b", {"x": 1.0}, {})


def test_a_parent_has_one_spelling() -> None:
    with pytest.raises(WarehouseError, match="12 hex digits"):
        dataset_version("judge", "code", {}, {"prompts": "0" * 64})


def test_hash_is_of_the_spelling() -> None:
    assert sha256_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
