import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from warehouse.errors import DatasetCorrupt, WarehouseError
from warehouse.manifest import Manifest


@pytest.fixture
def manifest(chain: dict[str, Manifest]) -> Manifest:
    return chain["judgments"]


def test_json_round_trip_is_the_identity(chain: dict[str, Manifest]) -> None:
    for manifest in chain.values():
        assert Manifest.from_json(manifest.to_json(), "here") == manifest
    unpriced = replace(
        chain["judgments"], calls=replace(chain["judgments"].calls, cost_usd=None, spent_usd=None)
    )
    assert Manifest.from_json(unpriced.to_json(), "here") == unpriced


def test_json_has_exactly_the_documented_keys(manifest: Manifest) -> None:
    assert sorted(json.loads(manifest.to_json())) == [
        "calls", "code_commit", "code_sha256", "config", "content_sha256", "dataset", "files",
        "finished_at", "flow_run_id", "is_code_dirty", "libraries", "manifest_sha256", "models",
        "n_bytes", "n_rows", "parents", "schema_id", "stage", "started_at", "task_run_id",
        "templates", "version", "version_sha256",
    ]  # fmt: skip


def corruptions() -> dict[str, Callable[[dict[str, Any]], object]]:
    return {
        "key 'stage' missing": lambda raw: raw.pop("stage"),
        "key 'colour' unknown": lambda raw: raw.update(colour="red"),
        "its content hashes to": lambda raw: raw.update(n_rows=raw["n_rows"] + 1),
    }


@pytest.mark.parametrize("found", corruptions())
def test_a_manifest_that_was_edited_is_refused_in_one_line(manifest: Manifest, found: str) -> None:
    raw = json.loads(manifest.to_json())
    corruptions()[found](raw)
    with pytest.raises(DatasetCorrupt) as caught:
        Manifest.from_json(json.dumps(raw).encode(), "/data/manifest.json")
    line = str(caught.value)
    assert found in line
    assert "/data/manifest.json" in line
    assert "\n" not in line


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"null", b"\xff\xfe"])
def test_what_is_no_manifest_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(DatasetCorrupt) as caught:
        Manifest.from_json(data, "here")
    assert "\n" not in str(caught.value)


def test_any_flipped_bit_is_noticed(manifest: Manifest) -> None:
    data = manifest.to_json()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(DatasetCorrupt):
            Manifest.from_json(bytes(flipped), "here")


def test_times_are_kept_in_utc_whatever_their_zone(manifest: Manifest) -> None:
    east = timezone(timedelta(hours=5))
    moved = replace(manifest, started_at=datetime(2030, 1, 1, 5, tzinfo=east))
    assert json.loads(moved.to_json())["started_at"] == "2030-01-01T00:00:00.000000Z"
    back = Manifest.from_json(moved.to_json(), "here")
    assert back.started_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_a_time_without_zone_is_refused(manifest: Manifest) -> None:
    with pytest.raises(WarehouseError, match="no time zone"):
        replace(manifest, started_at=datetime(2030, 1, 1)).to_json()
