"""Buys chat completions, each at most once, for any number of threads.

It knows no prompt, no verdict and no flow.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tasks._llm.buyer import Buyer
from tasks._llm.errors import EngineStopped, LlmError
from tasks._llm.orders import Counter, Order, again, stored_reply
from tasks._llm.prices import PriceTable
from tasks._llm.types import (
    CallReply,
    CallRequest,
    CallTally,
    Endpoint,
    EngineSettings,
    Progress,
)
from warehouse.errors import WarehouseError
from warehouse.ledger import Ledger

# Keys claimed and looked up at a time, so that a long batch starts buying at once.
_CLAIM_KEYS = 1000
_REPORT_S = 0.2
_RATE_WINDOW_S = 10.0


@dataclass(eq=False)
class _Batch:
    """One `complete`: results by position, and how many keys are still out."""

    replies: list[CallReply | None]
    positions: dict[str, list[int]] = field(default_factory=dict)
    waiting: int = 0
    error: BaseException | None = None
    is_settled: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _Entry(Order):
    """One key being looked up or bought, and the batches that wait for it, the buyer first."""

    batches: list[_Batch] = field(default_factory=list)


class CompletionEngine:
    """A blocking, thread-safe front of one event loop that makes the calls.

    Every reply is in the ledger before it is returned; every send is on record before it leaves.
    A fault that retries cannot mend stops the engine: calls on the wire still come in and are
    stored, then every caller gets the error. Requests that the ledger holds are answered even
    then. The engine closes neither the ledger nor what the endpoint callable started.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint],
        ledger: Ledger,
        settings: EngineSettings,
        prices: PriceTable,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            endpoint: Gives the server; called once, and only when a reply must be bought.
            ledger: Asked first, and told everything.
            settings: How to call; caps.
            prices: For the cost of each reply.
            on_progress: Called from the threads that wait in `complete`, at most five times a
                second, and once when nothing is left to do.
        """
        self._get_endpoint = endpoint
        self._ledger = ledger
        self._settings = settings
        self._prices = prices
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._start_lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._tally = CallTally()
        self._total_known = 0
        self._reported_s = 0.0
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._is_closed = False
        self._buyer: Buyer | None = None

    def __enter__(self) -> "CompletionEngine":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def complete(self, requests: Sequence[CallRequest]) -> list[CallReply]:
        """Answers requests, from the ledger where it can and by buying where it must.

        Args:
            requests: Any number; duplicates are bought once. A caller with very many passes
                shards: the replies of one batch are in memory together.

        Returns:
            One reply a request, in order.

        Raises:
            LlmError: the engine stopped; what was bought is in the ledger.
            WarehouseError: the ledger failed.
        """
        batch = _Batch([None] * len(requests))
        unique: dict[str, CallRequest] = {}
        for position, request in enumerate(requests):
            unique.setdefault(request.key, request)
            batch.positions.setdefault(request.key, []).append(position)
        todo = list(unique.values())
        with self._lock:
            self._total_known += len(requests)
        try:
            for start in range(0, len(todo), _CLAIM_KEYS):
                self._claim(batch, todo[start : start + _CLAIM_KEYS])
            while batch.waiting:
                batch.is_settled.wait(_REPORT_S)
                self._report()
        except BaseException:
            self._abandon(batch)
            raise
        if batch.error is not None:
            raise again(batch.error)
        self._report()
        return [reply for reply in batch.replies if reply is not None]

    def tally(self) -> CallTally:
        """Sums so far."""
        with self._lock:
            return self._tally

    def close(self) -> None:
        """Lets calls on the wire come in (for at most ``drain_s``) and ends the thread."""
        with self._lock:
            self._is_closed = True
        with self._start_lock:
            if self._buyer is not None:
                self._buyer.close()

    def _claim(self, batch: _Batch, requests: Sequence[CallRequest]) -> None:
        # Claimed first and looked up second: a key that another thread buys in between is either
        # still claimed by it, or committed and hence found.
        mine: list[_Entry] = []
        with self._lock:
            if self._is_closed:
                raise EngineStopped("Completion engine: it is closed; expected an open one")
            for request in requests:
                entry = self._entries.get(request.key)
                if entry is None:
                    entry = self._entries[request.key] = _Entry(request)
                    mine.append(entry)
                entry.is_dropped = False
                entry.batches.append(batch)
                batch.waiting += 1
                batch.is_settled.clear()
        try:
            held = self._ledger.lookup(entry.request.key for entry in mine)
            missing: list[_Entry] = []
            for entry in mine:
                found = held.get(entry.request.key)
                if found is None:
                    missing.append(entry)
                else:
                    self._settle(entry, stored_reply(found))
            if missing:
                self._started().add(missing)
        except BaseException as error:
            is_fault = isinstance(error, LlmError | WarehouseError)
            cause = error if is_fault else EngineStopped("Completion engine: it was interrupted")
            for entry in mine:
                # Some may be in the buyer's queue already.
                entry.is_dropped = True
                self._settle(entry, cause)
            raise

    def _started(self) -> Buyer:
        with self._start_lock:
            if self._buyer is None:
                self._buyer = Buyer(
                    self._get_endpoint(),
                    self._ledger,
                    self._settings,
                    self._prices,
                    Counter(self._settle, self._drop, self._retried),
                )
            return self._buyer

    def _settle(self, order: Order, result: CallReply | BaseException) -> None:
        with self._lock:
            self._settle_locked(order, result)

    def _drop(self, order: Order) -> bool:
        with self._lock:
            if order.is_dropped:
                self._settle_locked(
                    order, EngineStopped("Completion engine: its caller was interrupted")
                )
            return order.is_dropped

    def _settle_locked(self, order: Order, result: CallReply | BaseException) -> None:
        key = order.request.key
        entry = self._entries.get(key)
        if entry is not order or entry is None:
            return
        del self._entries[key]
        for index, batch in enumerate(entry.batches):
            batch.waiting -= 1
            if isinstance(result, BaseException):
                batch.error = result
            else:
                self._deliver(batch, result, is_buyer=index == 0)
            if not batch.waiting:
                batch.is_settled.set()

    def _deliver(self, batch: _Batch, reply: CallReply, *, is_buyer: bool) -> None:
        positions = batch.positions[reply.key]
        made = 1 if is_buyer and not reply.is_reused else 0
        copy = reply if reply.is_reused else reply._replace(is_reused=True)
        for position in positions:
            batch.replies[position] = copy
        if made:
            batch.replies[positions[0]] = reply
        old, reused, cost_usd = self._tally, len(positions) - made, reply.cost_usd or 0.0
        self._tally = CallTally(
            old.made + made,
            old.reused + reused,
            old.prompt_tokens + made * (reply.prompt_tokens or 0),
            old.completion_tokens + made * (reply.completion_tokens or 0),
            old.cost_usd + made * cost_usd,
            old.reused_cost_usd + reused * cost_usd,
            old.retries,
            old.unpriced + (made if reply.cost_usd is None else 0),
        )

    def _retried(self) -> None:
        with self._lock:
            self._tally = self._tally._replace(retries=self._tally.retries + 1)

    def _abandon(self, batch: _Batch) -> None:
        """Drops what this batch alone waits for; what is on the wire is bought and still kept."""
        with self._lock:
            buyer = self._buyer
            for entry in self._entries.values():
                if entry.batches == [batch]:
                    entry.is_dropped = True
        if buyer is None:
            return
        buyer.stir()
        end_s = time.monotonic() + self._settings.drain_s
        while batch.waiting and time.monotonic() < end_s:
            batch.is_settled.wait(_REPORT_S)

    def _report(self) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        with self._lock:
            tally = self._tally
            done = tally.made + tally.reused
            if now - self._reported_s < _REPORT_S and done < self._total_known:
                return
            self._reported_s = now
            while len(self._marks) > 1 and now - self._marks[0][0] > _RATE_WINDOW_S:
                self._marks.popleft()
            since_s, before = self._marks[0]
            self._marks.append((now, tally.made))
            rate = (tally.made - before) / max(now - since_s, 1e-3)
            progress = Progress(
                done, self._total_known, tally.made, tally.reused, tally.cost_usd, rate
            )
        self._on_progress(progress)
