"""Progress of a stage that tells nothing itself."""

from __future__ import annotations

from threading import Event

import pytest

from tasks import publish


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(publish, "create_progress_artifact", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(publish, "_only", lambda made: made)
    monkeypatch.setattr(
        publish, "update_progress_artifact", lambda _bar, percent: found.append(percent)
    )
    return found


def test_watched_work_is_looked_at_until_it_is_over(told: list[float]) -> None:
    steps, seen = iter([0, 40, 42, 90]), Event()

    def done() -> int:
        step = next(steps, None)
        if step is None:
            seen.set()
        # States are removed when the work is complete, which is no way back.
        return step or 0

    with publish.watched("tune", "steps", 100, done, every_s=0.001):
        assert seen.wait(30)
    # Every update is a request, so two percent more are none.
    assert told == [40.0, 90.0, 100.0]


def test_work_that_fails_is_not_told_as_done(told: list[float]) -> None:
    work = publish.watched("tune", "steps", 100, lambda: 50, every_s=60)
    with pytest.raises(ValueError, match="stopped"), work:
        raise ValueError("stopped")
    assert told == []


def test_at_most_twenty_requests_are_made(told: list[float]) -> None:
    tell = publish.progress("judge", "shards", 1000)
    for n_done in range(1, 1001):
        tell(n_done)
    assert len(told) == 20
    assert told[-1] == 100.0
