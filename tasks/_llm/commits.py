"""Group commit seen from the event loop: rows in, one call back for each after the COMMIT.

It stores nothing itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from warehouse.ledger import Ledger
from warehouse.ledger_rows import AttemptRow, Claims, LedgerReply, OutcomeRow, ReplyRow

# Between two commits of one engine: what a kill can lose, and what lets replies gather.
_SPACING_S = 0.02


class _Kept(NamedTuple):
    row: ReplyRow
    tell: Callable[[LedgerReply | BaseException | None], None]


class Committer:
    """Gathers the rows of many calls and hands them over as one.

    Used from one event loop. One future and one wake-up of the loop serve a whole group: with a
    future for each row, the wake-ups cost more than the commits.
    """

    def __init__(self, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self._ledger = ledger
        self._loop = loop
        self._owner = ledger.new_owner()
        self._outcomes: list[OutcomeRow] = []
        self._kept: list[_Kept] = []
        self._ended: list[tuple[str, str]] = []
        self._is_writing = False
        self._timer: asyncio.Handle | None = None
        self._written_s = 0.0
        self._flushes: list[asyncio.Future[None]] = []

    async def claim(self, attempts: Sequence[AttemptRow]) -> Claims:
        """Returns once the granted sends are on record."""
        claimed = self._ledger.claim(attempts, self._owner)
        # Replies that wait may as well share the commit that is made anyway.
        if self._timer is not None:
            self._timer.cancel()
            self._write()
        return await asyncio.shield(asyncio.wrap_future(claimed, loop=self._loop))

    def reply(
        self,
        row: ReplyRow,
        outcome: OutcomeRow,
        tell: Callable[[LedgerReply | BaseException | None], None],
    ) -> None:
        """Puts a reply on record with the next group and ends its claim.

        Args:
            row: The reply.
            outcome: How its send ended.
            tell: Called after the commit with the earlier reply of the key, None if it had none,
                or the ledger's error.
        """
        self._kept.append(_Kept(row, tell))
        self._ended.append((row.request_key, self._owner))
        self.outcome(outcome)

    def outcome(self, row: OutcomeRow) -> None:
        """Puts an outcome on record with the next group; nobody waits for it."""
        self._outcomes.append(row)
        self._schedule()

    def unclaim(self, key: str) -> None:
        """Lets others buy the key, with the next group; nobody waits for it."""
        self._ended.append((key, self._owner))
        self._schedule()

    async def flush(self) -> None:
        """Returns once everything handed over so far is on record, or known not to be."""
        while self._is_writing or self._timer is not None:
            done = self._loop.create_future()
            self._flushes.append(done)
            await done

    def _schedule(self) -> None:
        if not self._is_writing and self._timer is None:
            due_s = self._written_s + _SPACING_S
            if due_s <= self._loop.time():
                # At the end of this round of the loop: all replies that are in go together.
                self._timer = self._loop.call_soon(self._write)
            else:
                self._timer = self._loop.call_at(due_s, self._write)

    def _write(self) -> None:
        self._timer = None
        self._is_writing = True
        self._written_s = self._loop.time()
        outcomes, self._outcomes = self._outcomes, []
        kept, self._kept = self._kept, []
        ended, self._ended = self._ended, []
        try:
            done = self._ledger.record(
                outcomes=outcomes, replies=[one.row for one in kept], ended=ended
            )
        except Exception as error:
            self._finish(kept, error)
            return

        def wake(future: Future[dict[str, LedgerReply]]) -> None:
            result: Any = future.exception() or future.result()
            self._loop.call_soon_threadsafe(self._finish, kept, result)

        done.add_done_callback(wake)

    def _finish(
        self, kept: Sequence[_Kept], result: dict[str, LedgerReply] | BaseException
    ) -> None:
        self._is_writing = False
        for row, tell in kept:
            tell(result if isinstance(result, BaseException) else result.get(row.request_key))
        if self._outcomes or self._kept or self._ended:
            self._schedule()
        else:
            flushes, self._flushes = self._flushes, []
            for done in flushes:
                done.set_result(None)
