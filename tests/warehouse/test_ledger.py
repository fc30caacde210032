import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.postgres import fresh_database, postgres_server
from warehouse.ledger import Ledger, open_ledger
from warehouse.ledger_errors import LedgerCorrupt, LedgerError, LedgerLocked, LedgerUnusable
from warehouse.ledger_owner import batch_owner
from warehouse.ledger_recover import recover
from warehouse.ledger_rows import AttemptRow, OutcomeRow, ReplyRow

NOW = datetime(2026, 11, 21, 8, 30, 0, 123456, tzinfo=UTC)


def bought(text: str, reply: bytes = b'{"ok": 1}', **changes: Any) -> ReplyRow:
    request = f'{{"text":"{text}"}}'.encode()
    row = ReplyRow(
        hashlib.sha256(request).hexdigest(),
        "fake",
        "gpt-4o-mini",
        request,
        reply,
        200,
        7,
        3,
        None,
        0.25,
        NOW,
        NOW + timedelta(seconds=1),
    )
    return row._replace(**changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.sqlite"


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, path: Path) -> str:
    """Where a ledger is, in either kind of database."""
    if request.param == "sqlite":
        return str(path)
    return fresh_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    with open_ledger(place) as opened:
        yield opened


@pytest.fixture
def file_ledger(path: Path) -> Iterator[Ledger]:
    with open_ledger(path) as opened:
        yield opened


def execute(place: str, sql: str) -> None:
    engine = sa.create_engine(place if "://" in place else f"sqlite:///{place}")
    with engine.begin() as connection:
        connection.exec_driver_sql(sql)
    engine.dispose()


def test_what_goes_in_comes_out_byte_for_byte(ledger: Ledger, place: str) -> None:
    rows = [bought("a", b"\xff\x00 raw"), bought("b", b"", cost_usd=None, prompt_tokens=None)]
    assert ledger.record(replies=rows).result() == {}
    for opened in (ledger, open_ledger(place)):
        found = opened.lookup([row.request_key for row in rows] + ["absent"])
        assert set(found) == {row.request_key for row in rows}
        for row in rows:
            reply = found[row.request_key]
            assert (reply.body, reply.status, reply.cost_usd) == (row.reply, 200, row.cost_usd)
            assert (reply.prompt_tokens, reply.cached_tokens) == (row.prompt_tokens, None)
        calls = {call.reply.request_key: call for call in opened.iter_calls()}
        assert calls[rows[0].request_key].request == rows[0].request
        assert calls[rows[0].request_key].received_at == NOW + timedelta(seconds=1)
        opened.close()


def test_the_first_reply_of_a_key_stays_and_later_buyers_are_told(ledger: Ledger) -> None:
    first, second = bought("a", b"first"), bought("a", b"second")
    ledger.record(replies=[first]).result()
    held = ledger.record(replies=[second, bought("b")]).result()
    assert {key: reply.body for key, reply in held.items()} == {first.request_key: b"first"}
    assert ledger.lookup([first.request_key])[first.request_key].body == b"first"
    assert ledger.totals().calls == 2


def test_a_future_is_done_only_after_the_commit(file_ledger: Ledger, path: Path) -> None:
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    done = file_ledger.record(replies=[bought("a")])
    assert not done.done()
    with pytest.raises(TimeoutError):
        done.result(0.2)
    lock.execute("COMMIT")
    done.result()
    assert lock.execute("SELECT count(*) FROM calls").fetchone() == (1,)
    lock.close()


def test_attempts_without_an_outcome_are_counted(ledger: Ledger) -> None:
    ids = [ledger.new_attempt_id() for _ in range(3)]
    ledger.record(attempts=[AttemptRow(at, "k", NOW) for at in ids])
    ledger.record(
        outcomes=[OutcomeRow(ids[0], "reply", 200), OutcomeRow(ids[1], "fault", None, "timeout")],
        replies=[bought("a"), bought("b", cost_usd=None)],
    ).result()
    totals = ledger.totals()
    assert totals == (2, 14, 6, 0.25, 1, 3, 1)
    assert ids == sorted(set(ids))


def test_attempt_ids_of_two_ledgers_do_not_meet(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "a") as one, open_ledger(tmp_path / "b") as two:
        ids = [ledger.new_attempt_id() for _ in range(1000) for ledger in (one, two)]
    assert len(set(ids)) == 2000


def test_totals_of_an_empty_ledger_are_zero(ledger: Ledger) -> None:
    assert ledger.totals() == (0, 0, 0, 0.0, 0, 0, 0)
    assert list(ledger.iter_calls()) == []
    assert ledger.lookup([]) == {}


def test_lookups_and_streams_pass_their_page_sizes(ledger: Ledger) -> None:
    rows = [bought(str(i)) for i in range(2500)]
    ledger.record(replies=rows).result()
    keys = [row.request_key for row in rows]
    assert set(ledger.lookup(keys + [k[::-1] for k in keys])) == set(keys)
    assert ledger.held(iter(keys + keys)) == set(keys)
    assert [call.reply.request_key for call in ledger.iter_calls()] == sorted(keys)
    some = keys[::3]
    assert [call.reply.request_key for call in ledger.iter_calls(some)] == sorted(some)


def test_many_threads_write_at_once(ledger: Ledger) -> None:
    def work(k: int) -> None:
        for i in range(20):
            ledger.record(replies=[bought(f"{k} {i}"), bought("shared")]).result()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.totals().calls == 6 * 20 + 1


def test_two_processes_share_a_ledger(ledger: Ledger, place: str) -> None:
    code = (
        "import sys; from warehouse.ledger import open_ledger\n"
        "from tests.warehouse.test_ledger import bought\n"
        "with open_ledger(sys.argv[1]) as ledger:\n"
        "    for i in range(50): ledger.record(replies=[bought(f'child {i}')]).result()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, place],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    for i in range(50):
        ledger.record(replies=[bought(f"parent {i}")]).result()
    assert child.wait() == 0
    assert ledger.totals().calls == 100


def test_a_ledger_held_by_another_process_is_one_line(path: Path) -> None:
    with open_ledger(path, busy_timeout_s=0.1) as ledger:
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerLocked) as caught:
            ledger.record(replies=[bought("a")]).result()
        lock.close()
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
        # The next write is a new try.
        ledger.record(replies=[bought("a")]).result()


def test_a_full_disk_is_one_line_and_keeps_what_was_committed(path: Path) -> None:
    def limit_pages(connection: Any, record: object) -> None:
        connection.execute("PRAGMA max_page_count=40")

    sa.event.listen(sa.Engine, "connect", limit_pages)
    try:
        with open_ledger(path) as ledger:
            ledger.record(replies=[bought("small")]).result()
            with pytest.raises(LedgerError, match="disk is full") as caught:
                ledger.record(replies=[bought("big", os.urandom(1_000_000))]).result()
            assert caught.value.exit_code == 1
            assert ledger.totals().calls == 1
    finally:
        sa.event.remove(sa.Engine, "connect", limit_pages)


def test_a_file_that_is_no_ledger_is_told(path: Path) -> None:
    path.write_bytes(b"this is not a database, it only lies in its place" * 100)
    with pytest.raises(LedgerCorrupt, match="recover") as caught:
        open_ledger(path)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_damaged_pages_are_told_by_the_check(path: Path) -> None:
    with open_ledger(path) as ledger:
        ledger.record(replies=[bought(str(i), os.urandom(900)) for i in range(200)]).result()
        ledger.check()
    data = bytearray(path.read_bytes())
    data[30_000:150_000] = os.urandom(120_000)
    path.write_bytes(data)
    with open_ledger(path) as ledger, pytest.raises(LedgerCorrupt, match="recover"):
        ledger.check()


def test_a_damaged_reply_is_told_with_its_key(ledger: Ledger, place: str) -> None:
    row = bought("a")
    ledger.record(replies=[row]).result()
    value = "x'00112233'" if "://" not in place else r"'\x00112233'"
    execute(place, f"UPDATE calls SET reply_zlib = {value}")
    reply = ledger.lookup([row.request_key])[row.request_key]
    with pytest.raises(LedgerCorrupt, match=row.request_key[:12]):
        _ = reply.body


def test_a_changed_request_no_longer_has_its_key(ledger: Ledger) -> None:
    ledger.record(replies=[bought("a", request=b'{"text":"b"}')]).result()
    with pytest.raises(LedgerCorrupt, match="another key"):
        ledger.check()


def test_a_torn_log_loses_only_its_torn_tail(path: Path) -> None:
    with open_ledger(path) as ledger:
        for i in range(20):
            ledger.record(replies=[bought(str(i))]).result()
        # Copied while open, as a power cut would leave it: main file and log, the log torn.
        torn = path.parent / "torn.sqlite"
        torn.write_bytes(path.read_bytes())
        log = path.with_name(path.name + "-wal").read_bytes()
    torn.with_name("torn.sqlite-wal").write_bytes(log[: int(len(log) * 0.8)])
    with open_ledger(torn) as ledger:
        assert 0 < ledger.totals().calls < 20
        ledger.check()


def test_a_table_of_other_columns_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE calls (request_key TEXT, answer TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerUnusable, match="answer") as caught:
        open_ledger(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("place", ["", ":memory:", "no-such-driver://x/y", "sqlite://"])
def test_places_that_cannot_hold_a_ledger_are_refused(place: str) -> None:
    with pytest.raises(LedgerUnusable):
        open_ledger(place)


def test_a_folder_or_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="no file"):
        open_ledger(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(LedgerUnusable, match="folder cannot be made"):
        open_ledger(tmp_path / "file" / "calls.sqlite")


def test_a_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(LedgerError) as caught:
        open_ledger("postgresql+nodriver://me:hidden@127.0.0.1:1/db")
    assert "hidden" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_ledger_is_told(path: Path) -> None:
    open_ledger(path).close()
    path.chmod(stat.S_IRUSR)
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(LedgerUnusable, match="permissions"):
            open_ledger(path)
    finally:
        path.parent.chmod(stat.S_IRWXU)


def test_a_closed_ledger_commits_what_waits_and_takes_no_more(path: Path) -> None:
    ledger = open_ledger(path)
    done = [ledger.record(replies=[bought(str(i))]) for i in range(50)]
    ledger.close()
    ledger.close()
    assert all(future.done() for future in done)
    with pytest.raises(LedgerError, match="closed"):
        ledger.record(replies=[bought("late")])
    with open_ledger(path) as again:
        assert again.totals().calls == 50


def test_what_is_readable_of_a_damaged_ledger_is_copied_and_proven(path: Path) -> None:
    rows = [bought(str(i), os.urandom(900)) for i in range(300)]
    with open_ledger(path) as ledger:
        for row in rows:
            ledger.record(
                replies=[row], attempts=[AttemptRow(ledger.new_attempt_id(), row.request_key, NOW)]
            )
    data = bytearray(path.read_bytes())
    data[100_000:130_000] = os.urandom(30_000)
    path.write_bytes(data)
    target = path.with_name("recovered.sqlite")
    found = recover(path, target)
    assert 150 < found.calls < 300
    assert found.attempts > 100
    assert found.unread_ranges >= 1
    by_key = {row.request_key: row for row in rows}
    with open_ledger(target) as ledger:
        ledger.check()
        replies = ledger.lookup(by_key)
        assert len(replies) == found.calls
        assert all(reply.body == by_key[key].reply for key, reply in replies.items())
    with pytest.raises(LedgerUnusable, match="exists"):
        recover(path, target)


def test_a_file_that_never_was_a_ledger_cannot_be_recovered(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerCorrupt, match="nothing can be recovered"):
        recover(path, path.with_name("new.sqlite"))


def test_a_password_of_a_server_that_refuses_is_not_shown(place: str) -> None:
    if "://" not in place:
        pytest.skip("a file has no password")
    url = sa.make_url(place).set(password="hidden-word", database="no_such_database")
    with pytest.raises(LedgerError, match="no_such_database") as caught:
        open_ledger(url.render_as_string(hide_password=False))
    assert "hidden-word" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_locked_for_longer_than_asked_is_one_line(place: str) -> None:
    if "://" not in place:
        pytest.skip("the file's lock has its own test")
    with open_ledger(place, busy_timeout_s=0.3) as ledger:
        engine = sa.create_engine(place)
        with engine.begin() as other:
            other.exec_driver_sql("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(LedgerLocked):
                ledger.record(replies=[bought("a")]).result()
        engine.dispose()
        ledger.record(replies=[bought("a")]).result()


def test_a_claim_is_granted_once_and_to_its_owner_again(ledger: Ledger, place: str) -> None:
    row = bought("a")
    key = row.request_key

    def attempt() -> list[AttemptRow]:
        return [AttemptRow(ledger.new_attempt_id(), key, NOW)]

    mine, yours = ledger.new_owner(), ledger.new_owner()
    assert ledger.claim(attempt(), mine).result().granted == {key}
    assert ledger.claim(attempt(), mine).result().granted == {key}
    with open_ledger(place) as other:
        assert other.claim(attempt(), other.new_owner()).result().taken == {key}
        assert set(other.standing([key]).taken) == {key}
    assert ledger.claim(attempt(), yours).result().taken == {key}
    assert ledger.totals().attempts == 2
    ledger.record(replies=[row], ended=[(key, mine)]).result()
    claims = ledger.claim(attempt(), yours).result()
    assert (claims.granted, claims.taken) == (frozenset(), frozenset())
    assert claims.held[key].body == row.reply
    assert ledger.standing([key]).held[key].body == row.reply
    assert ledger.totals().attempts == 2


def test_a_claim_ends_with_its_ledger_or_when_it_is_given_back(place: str) -> None:
    def ask(ledger: Ledger, key: str) -> frozenset[str]:
        row = AttemptRow(ledger.new_attempt_id(), key, NOW)
        return ledger.claim([row], ledger.new_owner()).result().granted

    with open_ledger(place) as second:
        with open_ledger(place) as first:
            owner = first.new_owner()
            rows = [AttemptRow(first.new_attempt_id(), key, NOW) for key in ("k", "l")]
            assert first.claim(rows, owner).result().granted == {"k", "l"}
            assert ask(second, "k") == frozenset()
            first.record(ended=[("k", owner)]).result()
            assert ask(second, "k") == {"k"}
            assert ask(second, "l") == frozenset()
        assert ask(second, "l") == {"l"}


def test_an_expired_claim_of_an_unknown_place_is_free(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.ledger.new_owner", lambda: "elsewhere/1/1/x")
    monkeypatch.setattr(Ledger, "_renew", lambda self: None)
    first = open_ledger(place, lease_s=0.5)
    second = open_ledger(place)
    first.claim([AttemptRow(1, "k", NOW)], "elsewhere/1/1/x").result()
    assert set(second.standing(["k"]).taken) == {"k"}
    time.sleep(0.7)
    assert second.standing(["k"]) == ({}, {})
    assert second.claim([AttemptRow(2, "k", NOW)], "elsewhere/2/2/y").result().granted == {"k"}
    # The first no longer owns it, so that its end does not end the second's claim.
    first.close()
    assert set(second.standing(["k"]).taken) == {"k"}
    second.close()


def test_a_long_claim_outlives_the_ledger_that_made_it_and_is_not_shortened_by_others(
    place: str,
) -> None:
    owner = batch_owner("b1")
    first = open_ledger(place, lease_s=0.2)
    first.claim([AttemptRow(1, "k", NOW)], owner, 3600.0).result()
    # An ordinary claim makes the ledger renew its claims, and close ends them.
    first.claim([AttemptRow(2, "l", NOW)], first.new_owner()).result()
    time.sleep(0.3)
    first.close()
    with open_ledger(place) as second:
        assert second.standing(["k", "l"]).taken == {"k": owner}
        assert second.claim([AttemptRow(3, "k", NOW)], second.new_owner()).result().taken == {"k"}
        # Whoever goes on with the batch has its claim; the end of the batch ends it.
        assert second.claim([AttemptRow(4, "k", NOW)], owner, 3600.0).result().granted == {"k"}
        second.record(ended=[("k", owner)]).result()
        assert second.standing(["k"]).taken == {}


def test_forgotten_calls_leave_the_database_and_attempts_stay(ledger: Ledger) -> None:
    kept, gone = bought("keep"), bought("forget this")
    sent = [AttemptRow(ledger.new_attempt_id(), one.request_key, NOW) for one in (kept, gone)]
    ledger.record(attempts=sent, replies=[kept, gone]).result()
    ledger.forget([gone.request_key, "0" * 64])
    assert [one.reply.request_key for one in ledger.iter_calls()] == [kept.request_key]
    assert ledger.totals().attempts == 2
    # The same call may be bought again.
    ledger.record(replies=[gone]).result()
    assert ledger.held([gone.request_key]) == {gone.request_key}


def test_forgotten_calls_are_in_no_byte_of_the_files(file_ledger: Ledger, path: Path) -> None:
    noise = hashlib.sha256(b"n").hexdigest() * 40
    gone = bought(noise)
    file_ledger.record(replies=[gone, bought("keep")]).result()
    files = [path, path.with_name(f"{path.name}-wal")]
    packed_text = zlib.compress(gone.request, 1)

    def held() -> bool:
        return any(packed_text[20:80] in one.read_bytes() for one in files if one.is_file())

    assert held()
    file_ledger.forget([gone.request_key])
    assert not held()
