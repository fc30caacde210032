"""Group commit seen from the event loop: rows in, an awaitable that is done after the COMMIT.

It stores nothing itself.
"""

import asyncio
from concurrent.futures import Future

from warehouse.ledger import Ledger
from warehouse.ledger_rows import AttemptRow, LedgerReply, OutcomeRow, ReplyRow


class Committer:
    """Gathers the rows of many calls while one commit is under way, and hands them over as one.

    Used from one event loop. One future and one wake-up of the loop serve a whole group: with a
    future for each row, the wake-ups cost more than the commits.
    """

    def __init__(self, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self._ledger = ledger
        self._loop = loop
        self._attempts: list[AttemptRow] = []
        self._outcomes: list[OutcomeRow] = []
        self._replies: list[ReplyRow] = []
        self._next: asyncio.Future[dict[str, LedgerReply]] = loop.create_future()
        self._is_writing = False
        self._is_scheduled = False
        self._is_flushing = False

    async def attempt(self, row: AttemptRow) -> None:
        """Returns once the send is on record."""
        self._attempts.append(row)
        await self._commit()

    async def reply(self, row: ReplyRow, outcome: OutcomeRow) -> LedgerReply | None:
        """Returns once the reply is on record; the earlier reply of the key if it had one."""
        self._replies.append(row)
        self._outcomes.append(outcome)
        return (await self._commit()).get(row.request_key)

    def outcome(self, row: OutcomeRow) -> None:
        """Puts an outcome on record with the next group; nobody waits for it."""
        self._outcomes.append(row)
        self._schedule()

    async def flush(self) -> None:
        """Returns once everything handed over so far is on record."""
        if self._is_writing or self._is_scheduled:
            self._is_flushing = True
            await self._commit()

    async def _commit(self) -> dict[str, LedgerReply]:
        self._schedule()
        # Shielded: a cancelled call must not cancel the commit of all the others.
        return await asyncio.shield(self._next)

    def _schedule(self) -> None:
        if not self._is_writing and not self._is_scheduled:
            self._is_scheduled = True
            # At the end of this round of the loop: all calls that are ready now go together.
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._is_scheduled = False
        self._is_writing = True
        self._is_flushing = False
        waiting, self._next = self._next, self._loop.create_future()
        attempts, self._attempts = self._attempts, []
        outcomes, self._outcomes = self._outcomes, []
        replies, self._replies = self._replies, []
        if not (attempts or outcomes or replies):
            self._finish(waiting, {})
            return
        try:
            done = self._ledger.record(attempts=attempts, outcomes=outcomes, replies=replies)
        except Exception as error:
            self._finish(waiting, error)
            return

        def wake(future: Future[dict[str, LedgerReply]]) -> None:
            result = future.exception() or future.result()
            self._loop.call_soon_threadsafe(self._finish, waiting, result)

        done.add_done_callback(wake)

    def _finish(
        self,
        waiting: asyncio.Future[dict[str, LedgerReply]],
        result: dict[str, LedgerReply] | BaseException,
    ) -> None:
        self._is_writing = False
        if isinstance(result, BaseException):
            waiting.set_exception(result)
            # Outcomes have nobody who waits; an unread exception would be printed at exit.
            waiting.exception()
        else:
            waiting.set_result(result)
        if self._attempts or self._outcomes or self._replies or self._is_flushing:
            self._schedule()
