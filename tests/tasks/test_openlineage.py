"""OpenLineage events say who made what from what, hold no data, and never stop a run."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks._openlineage import LineageSender, checked
from tasks._settings import read_environment
from tasks.errors import InputRejected
from tests.tasks.test_cards import manifest

FLOW_RUN = "11111111-1111-4111-8111-111111111111"
TASK_RUN = "22222222-2222-4222-8222-222222222222"


def tell(target: str) -> LineageSender:
    sender = LineageSender(target, Path("/data"), "attributes", FLOW_RUN)
    made = manifest("judgments", "pairs", "prompts")
    sender.began()
    sender.made([replace(made, task_run_id=TASK_RUN, config={"secret": "prompt text"})])
    sender.ended(ValueError("a text that quotes data"))
    return sender


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_run_and_its_stage_are_four_kinds_of_events_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert tell(str(path)).fault is None
    events = told(path)
    assert [(one["eventType"], one["job"]["name"]) for one in events] == [
        ("START", "attributes"),
        ("START", "attributes.s"),
        ("COMPLETE", "attributes.s"),
        ("FAIL", "attributes"),
    ]
    start, end = events[1:3]
    assert start["run"]["runId"] == end["run"]["runId"] == TASK_RUN
    assert end["run"]["facets"]["parent"]["run"]["runId"] == FLOW_RUN
    assert [one["name"] for one in end["inputs"]] == ["/data/pairs", "/data/prompts"]
    [output] = end["outputs"]
    assert output["name"] == "/data/judgments"
    assert output["facets"]["version"]["datasetVersion"] == "a" * 12
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 1234
    assert "verdict" in {one["name"] for one in output["facets"]["schema"]["fields"]}


def test_every_event_has_what_the_specification_requires(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tell(str(path))
    for event in told(path):
        assert {"eventTime", "producer", "schemaURL", "run", "job", "eventType"} <= set(event)
        uuid.UUID(event["run"]["runId"])
        assert event["eventTime"].endswith("Z")
        assert set(event["job"]) >= {"namespace", "name"}
        facets = [*event["run"]["facets"].values()]
        for one in (*event["inputs"], *event["outputs"]):
            assert {"namespace", "name"} <= set(one)
            facets += [*one["facets"].values(), *one.get("outputFacets", {}).values()]
        for facet in facets:
            assert facet["_producer"]
            assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")


def test_events_hold_no_setting_and_no_text_of_an_error(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tell(str(path))
    text = path.read_text("utf-8")
    assert "prompt text" not in text
    assert "quotes data" not in text
    assert "ValueError" in text


@pytest.fixture
def backend() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    got: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, json.loads(data)))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def test_a_backend_gets_the_same_events_where_backends_listen(
    backend: tuple[str, list[tuple[str, dict[str, Any]]]], tmp_path: Path
) -> None:
    url, got = backend
    assert tell(url).fault is None
    tell(str(tmp_path / "f"))
    assert {path for path, _ in got} == {"/api/v1/lineage"}
    kinds = [one["eventType"] for one in told(tmp_path / "f")]
    assert [event["eventType"] for _, event in got] == kinds


def test_a_backend_that_does_not_answer_is_told_of_once_and_stops_nothing() -> None:
    sender = tell("http://127.0.0.1:9")
    assert sender.fault is not None
    assert "no more are sent in this run" in sender.fault


@pytest.mark.parametrize(
    "target", ["ftp://host/x", "http://user:key@host", "/nowhere/at/all/f", "/tmp", "http://"]
)
def test_a_target_that_is_neither_file_nor_address_is_refused(target: str) -> None:
    with pytest.raises(InputRejected, match="PREF_OPENLINEAGE") as caught:
        checked(target)
    assert "key@" not in str(caught.value)


def test_nothing_is_told_unless_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_environment().openlineage is None
    monkeypatch.setenv("PREF_OPENLINEAGE", "events.jsonl")
    assert read_environment().openlineage == "events.jsonl"
