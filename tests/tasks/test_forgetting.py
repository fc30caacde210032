"""A person who is forgotten is nowhere any more, is known to have been, and does not come back."""

from __future__ import annotations

import hashlib
import json
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prompts.neutral import neutralize
from tasks._llm.batch_store import NewLine, open_batch_store
from tasks._runs import RunIds, plan_stage, run_stage, warehouse_at
from tasks._stages import prism
from tasks._stages.configs import stage_configs
from tasks._stages.own import ASSEMBLE_STAGE
from tasks.auditing import audit_all
from tasks.config import OwnConfig, PrismConfig
from tasks.errors import InputRejected
from tasks.exporting import export_datasets
from tasks.forgetting import Removal, forget
from tasks.importing import import_own
from tests.tasks.own.data import own_rows, write_own
from tests.tasks.stages.prism_rows import write_prism
from warehouse.errors import DatasetMissing
from warehouse.ledger import open_ledger
from warehouse.ledger_rows import ReplyRow
from warehouse.store import Warehouse

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENCODER = {"encoder_id": "none"}


def everything_in(root: Path) -> dict[str, bytes]:
    """Every file, with what Parquet and the ledger keep packed laid open."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and ".lock" not in path.name:
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += repr(pq.read_table(path).to_pylist()).encode()
            found[str(path.relative_to(root))] = data
    if (root / "ledger.sqlite").is_file():
        with open_ledger(root / "ledger.sqlite") as ledger:
            calls = [one.request + one.reply.body for one in ledger.iter_calls()]
        found["calls"] = b"".join(calls)
    return found


def holding(root: Path, *texts: str) -> list[str]:
    return [name for name, data in everything_in(root).items() for t in texts if t.encode() in data]


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "ledger" not in path.name
    }


def own_config(home: Path) -> OwnConfig:
    data = home / "data"
    if not data.is_dir():
        rows = own_rows(8, 3)
        for row in rows["users"]:
            row["user_id"] = f"{row['user_id']}@example.org"
        for row in rows["preferences"]:
            row["user_id"] = f"{row['user_id']}@example.org"
        write_own(data, rows)
    return OwnConfig.model_validate(
        {"warehouse": str(home / "w"), "ingest": {"data": str(data), "licence": "CC0-1.0"}}
    )


def imported(home: Path) -> Warehouse:
    found = import_own(own_config(home))
    warehouse = warehouse_at(str(home / "w"))
    plan = plan_stage(ASSEMBLE_STAGE, str(home / "w"), {}, found["datasets"])
    run_stage(plan, ASSEMBLE_STAGE, RunIds("test", None))
    return warehouse


def test_a_user_of_a_teams_own_data_is_removed_with_all_that_was_made_of_it(
    tmp_path: Path,
) -> None:
    warehouse = imported(tmp_path)
    export_datasets(warehouse, ["preferences", "personas"], tmp_path / "out", "n")
    # Nobody but u3 answered on these prompts.
    texts = ("u3@example.org", "Question p3-1?", "long answer", "Person 3.")
    assert holding(tmp_path / "w", *texts[:2])
    done = forget(warehouse, "u3@example.org", is_real=True)
    assert {one.manifest.dataset for one in done.versions} == {
        "personas", "prompts", "responses", "pairs", "answers", "preferences",
    }  # fmt: skip
    assert not holding(tmp_path / "w", *texts)
    assert not (tmp_path / "out").exists()
    assert audit_all(warehouse) == (0, [])


def test_who_was_forgotten_is_left_out_of_the_next_import_and_nobody_else_is(
    tmp_path: Path,
) -> None:
    warehouse = imported(tmp_path)
    forget(warehouse, "u3@example.org", is_real=True)
    again = import_own(own_config(tmp_path))
    assert not holding(tmp_path / "w", "u3@example.org", "Question p3-1?", "Person 3.")
    rows = warehouse.read("personas", again["datasets"]["personas"])["persona_id"].to_pylist()
    assert rows == [f"u{one}@example.org" for one in range(8) if one != 3]
    assert again["rows"] == {
        "prompts": 21, "personas": 7, "responses": 42, "pairs": 21, "answers": 21,
    }  # fmt: skip
    assert again["left_out"] == 0
    assert audit_all(warehouse) == (5, [])


def test_a_list_changes_nothing_and_names_what_would_go(tmp_path: Path) -> None:
    warehouse = imported(tmp_path)
    before = tree(tmp_path)
    listed = forget(warehouse, "u3@example.org", is_real=False)
    assert tree(tmp_path) == before
    done = forget(warehouse, "u3@example.org", is_real=True)
    assert [one.manifest for one in listed.versions] == [one.manifest for one in done.versions]
    assert (listed.is_done, done.is_done) == (False, True)
    json.dumps(done.as_json())


def test_a_person_who_comes_back_by_another_way_is_found_by_the_audit(tmp_path: Path) -> None:
    warehouse = imported(tmp_path)
    forget(warehouse, "u3@example.org", is_real=True)
    kept = next((tmp_path / "w" / "forgotten").glob("*.json"))
    stone = kept.read_bytes()
    # An older release knows of no removals.
    kept.unlink()
    import_own(own_config(tmp_path))
    kept.write_bytes(stone)
    _, findings = audit_all(warehouse)
    assert {one.dataset for one in findings} == {"personas", "answers"}
    assert all("had been forgotten" in one.problem for one in findings)
    again = forget(warehouse, "u3@example.org", is_real=True)
    assert again.versions
    assert audit_all(warehouse) == (0, [])
    assert len(list((tmp_path / "w" / "forgotten").glob("*.json"))) == 1


def test_someone_nobody_knows_is_refused(tmp_path: Path) -> None:
    warehouse = imported(tmp_path)
    with pytest.raises(DatasetMissing, match="names it, expected one of"):
        forget(warehouse, "nobody", is_real=True)
    assert not (tmp_path / "w" / "forgotten").exists()


def reply_row(content: str, reply: str = "VERDICT: 1") -> ReplyRow:
    message = [{"role": "user", "content": content}]
    request = json.dumps({"messages": message}, sort_keys=True).encode()
    body = json.dumps({"choices": [{"message": {"content": reply}}]}, ensure_ascii=False).encode()
    key = hashlib.sha256(request).hexdigest()
    return ReplyRow(key, "t", "m", request, body, 200, 1, 1, None, 0.5, NOW, NOW)


class Participants:
    """PRISM's ingest in a warehouse, and calls beside it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "w"
        self.files = write_prism(home / "prism")
        self.versions = self.ingest()
        self.warehouse = warehouse_at(str(self.root))
        rows = self.warehouse.read("personas", self.versions["personas"]).to_pylist()
        self.profile = next(row["profile_text"] for row in rows if row["persona_id"] == "u1")
        self.about = {
            "as the judge": reply_row(f"<persona>\n{neutralize(self.profile)}\n</persona>"),
            "the prompt": reply_row(
                "<prompt>\nShould towns close their centers to cars?\n</prompt>"
            ),
            "told in a reply": reply_row("Whom?", f"Of — {self.profile}"),
            "a short text alone": reply_row("System:\nBe brief.\nGo on."),
        }
        self.others = {
            "a short text within": reply_row("Whatever you say, Be brief. Always."),
            "another person": reply_row("<persona>\nSomebody else entirely.\n</persona>"),
        }
        with open_ledger(self.root / "ledger.sqlite") as ledger:
            rows_ = [*self.about.values(), *self.others.values()]
            ledger.record(replies=rows_).result()

    def ingest(self) -> dict[str, str]:
        config = PrismConfig.model_validate(
            {"warehouse": str(self.root), "ingest": {"prism": str(self.files)}}
        )
        plan = plan_stage(
            prism.STAGE,
            str(self.root),
            stage_configs(config, ENCODER)["prism"],
            {},
            {"prism": str(self.files)},
        )
        refs = run_stage(plan, prism.STAGE, RunIds("test", None))
        return {ref["dataset"]: ref["version"] for ref in refs}

    def forget(self, *, is_real: bool = True) -> Removal:
        return forget(self.warehouse, "u1", is_real=is_real)


@pytest.fixture
def people(tmp_path: Path) -> Participants:
    return Participants(tmp_path)


def test_calls_that_hold_the_persons_texts_go_and_others_stay(people: Participants) -> None:
    done = people.forget()
    assert set(done.request_keys) == {one.request_key for one in people.about.values()}
    assert done.cost_usd == 0.5 * len(people.about)
    with open_ledger(people.root / "ledger.sqlite") as ledger:
        left = {one.reply.request_key for one in ledger.iter_calls()}
    assert left == {one.request_key for one in people.others.values()}
    raw = (people.root / "ledger.sqlite").read_bytes()
    assert not any(zlib.compress(one.request, 1) in raw for one in people.about.values())
    words = (people.profile, "close their centers to cars?")
    assert not holding(people.root, *words)


def test_openings_of_the_person_go_and_do_not_come_back(people: Participants) -> None:
    people.forget()
    again = people.ingest()
    personas = people.warehouse.read("personas", again["personas"])["persona_id"].to_pylist()
    assert personas == ["u2", "u3", "u4", "u5", "u6"]
    openings = people.warehouse.read("openings", again["openings"])
    assert "u1" not in openings["author_id"].to_pylist()
    assert openings.num_rows == 5
    assert people.warehouse.read("opening_responses", again["openings"]).num_rows == 10


def test_the_record_of_a_removal_holds_nothing_of_the_person(people: Participants) -> None:
    people.forget()
    [stone] = (people.root / "forgotten").glob("*.json")
    told = json.loads(stone.read_text("utf-8"))
    assert told["n_calls"] == 4
    assert told["finished_at"]
    told.pop("mark")
    lines = [line for line in people.profile.split("\n") if line]
    assert lines
    assert not any(line in json.dumps(told) for line in ('"u1"', *lines))
    assert [*told["versions"]] == [
        f"{name} {people.versions[name]}" for name in ("opening_responses", "openings", "personas")
    ]


def test_a_removal_that_is_cut_off_is_a_finding_and_the_same_command_ends_it(
    people: Participants, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Any] = []

    def cut_off(self: Warehouse, manifest: Any) -> None:
        removed.append(manifest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Warehouse, "remove", cut_off)
        with pytest.raises(KeyboardInterrupt):
            people.forget()
    assert removed
    told = [one.problem for one in audit_all(people.warehouse)[1]]
    assert any("was cut off" in one for one in told)
    people.forget()
    assert not holding(people.root, people.profile)
    assert audit_all(people.warehouse) == (0, [])
    assert people.forget(is_real=False).forgotten_before is not None


def test_unfinished_shards_go_because_they_may_hold_anybody(people: Participants) -> None:
    rows = people.warehouse.read("personas", people.versions["personas"])
    people.warehouse.write_shard("judge", "a" * 12 + "-200", 0, rows)
    assert people.forget(is_real=False).unfinished == ["judge/" + "a" * 12 + "-200"]
    people.forget()
    assert people.warehouse.unfinished() == []


def test_calls_that_wait_for_a_batch_go_and_a_batch_under_way_is_refused(
    people: Participants,
) -> None:
    request = reply_row(f"<persona>\n{people.profile}\n</persona>\nOnce more.")
    line = NewLine(request.request_key, "t", "m", request.request, 10)
    with open_batch_store(people.root / "ledger.sqlite") as store:
        store.add_lines([line])
        listed = people.forget(is_real=False)
        assert request.request_key in listed.request_keys
        submission = store.plan("t", "m", [request.request_key], "me")
        assert submission is not None
        with pytest.raises(InputRejected, match="a batch under way"):
            people.forget()
        store.release(submission, [request.request_key])
    people.forget()
    with open_batch_store(people.root / "ledger.sqlite") as store:
        assert list(store.requests()) == []
