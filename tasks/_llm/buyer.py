"""The event loop that makes the calls: slots, retries, the end of a run.

Only the engine uses it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tasks._llm.budget import Budget
from tasks._llm.client import ChatClient, HttpReply
from tasks._llm.commits import Committer
from tasks._llm.errors import (
    BudgetReached,
    CallFailed,
    EngineStopped,
    LlmError,
    RequestInvalid,
    clean_line,
)
from tasks._llm.prices import PriceTable
from tasks._llm.replies import Answer, read_reply
from tasks._llm.retry import RULES, Action, Fault, backoff_s, fault_error
from tasks._llm.types import CallReply, CallRequest, Endpoint, EngineSettings
from warehouse.errors import WarehouseError
from warehouse.ledger import Ledger
from warehouse.ledger_rows import AttemptRow, LedgerReply, OutcomeRow, ReplyRow

# The first call goes alone, so that a wrong key or a dead server costs one call and not hundreds;
# but a slow model must not hold the others up.
_PILOT_S = 2.0
_FIRST_CONNECT_SENDS = 3
_FIRST_CONNECT_S = 3.0


@dataclass(eq=False)
class Order:
    """One call to be bought.

    Attributes:
        request: What to send.
        is_dropped: Nobody waits for it any more; it is not sent (again).
    """

    request: CallRequest
    is_dropped: bool = False


@dataclass(frozen=True)
class Counter:
    """Where the loop reports to; called from its thread.

    Attributes:
        settle: Takes the reply of an order, or the error that ended the run.
        drop: Settles a dropped order; False if somebody wants it again after all.
        retried: Counts a send beyond the first of its call.
    """

    settle: Callable[[Order, CallReply | BaseException], None]
    drop: Callable[[Order], bool]
    retried: Callable[[], None]


@dataclass(eq=False)
class _Course:
    """How one order has gone so far."""

    order: Order
    body: bytes = field(repr=False)
    worst_case_usd: float
    sends: int = 0
    faults: int = 0
    held_up_s: float = 0.0


class _Stopped(Exception):
    """The run ends, or nobody wants the call any more."""


class Buyer:
    """One daemon thread with one event loop; orders in from any thread, replies out by callback.

    The number of orders that have a task is bounded, and with it the memory of the loop: the
    others wait in a queue of references. A slot is held while a request is on the wire (and its
    attempt is being committed), not while its reply is.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        settings: EngineSettings,
        prices: PriceTable,
        counter: Counter,
    ) -> None:
        self._endpoint = endpoint
        self._ledger = ledger
        self._settings = settings
        self._prices = prices
        self._counter = counter
        self._budget = Budget(settings, prices)
        self._client = ChatClient(endpoint, settings)
        self._loop = asyncio.new_event_loop()
        self._committer = Committer(ledger, self._loop)
        self._queue: deque[Order] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._teller: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._go = asyncio.Event()
        self._stirred = asyncio.Event()
        self._settled = asyncio.Event()
        self._fatal: Exception | None = None
        self._pilot: Order | None = None
        self._resume_s = 0.0
        self._refusals = 0
        self._gone_since_s: float | None = None
        self._has_answered = False
        self._thread = threading.Thread(target=self._serve, name="llm-engine", daemon=True)
        self._thread.start()

    def add(self, orders: Sequence[Order]) -> None:
        """Takes orders; each is settled once.

        Raises:
            LlmError: the run has ended, or an order is meant for another endpoint.
        """
        if self._fatal is not None:
            raise again(self._fatal)
        for order in orders:
            if order.request.endpoint_name != self._endpoint.name:
                raise RequestInvalid(
                    f"Request for endpoint {clean_line(order.request.endpoint_name, 80)!r}: this "
                    f"engine buys at {clean_line(self._endpoint.name, 80)!r}; its reply would be "
                    "kept under a wrong name; use the engine of that endpoint"
                )
        try:
            self._loop.call_soon_threadsafe(self._enqueue, orders)
        except RuntimeError:
            raise EngineStopped("Completion engine: it is closed; expected an open one") from None

    def stir(self) -> None:
        """Makes the loop look for dropped orders now."""
        # A closed loop has settled all its orders.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._sweep)

    def close(self) -> None:
        """Ends the run, waits for calls on the wire, ends the thread; safe to call twice."""
        if not self._thread.is_alive():
            return
        ended = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        with suppress(TimeoutError):
            ended.result(self._settings.drain_s + 10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _end(self) -> None:
        self._stop(EngineStopped("Completion engine: it was closed while calls were waiting"))
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._fatal is not None:
            await self._tell(self._fatal)
        await self._client.close()

    def _enqueue(self, orders: Sequence[Order]) -> None:
        self._queue.extend(orders)
        self._pump()

    def _sweep(self) -> None:
        waiting, self._queue = self._queue, deque()
        self._queue.extend(o for o in waiting if not (o.is_dropped and self._counter.drop(o)))
        self._wake()
        self._pump()

    def _wake(self) -> None:
        # Each event is replaced: whoever slept on the old one looks at the world again.
        stirred, self._stirred = self._stirred, asyncio.Event()
        stirred.set()
        self._settled.set()

    def _pump(self) -> None:
        if self._fatal is not None:
            if self._queue and not self._tasks and self._teller is None:
                self._teller = self._loop.create_task(self._tell(self._fatal))
            return
        while self._queue and len(self._tasks) < 2 * self._settings.max_in_flight:
            order = self._queue.popleft()
            if order.is_dropped and self._counter.drop(order):
                continue
            task = self._loop.create_task(self._run(order))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _tell(self, error: Exception) -> None:
        # Errors are told last, when everything that was on the wire is committed. The ledger's
        # own fault, if it has one, is the error to be told or comes with the next call.
        with suppress(WarehouseError):
            await self._committer.flush()
        while self._queue:
            self._counter.settle(self._queue.popleft(), error)
        self._teller = None

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pump()

    def _stop(self, error: Exception) -> None:
        if self._fatal is None:
            self._fatal = error
            self._go.set()
            self._wake()
            self._loop.call_later(self._settings.drain_s, self._cancel)
            self._loop.call_soon(self._pump)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, order: Order) -> None:
        try:
            reply = await self._buy(order)
        except _Stopped:
            if self._fatal is not None or not self._counter.drop(order):
                self._queue.append(order)
        except asyncio.CancelledError:
            self._queue.append(order)
        except Exception as error:  # whatever it is, the callers must hear of it
            self._stop(error)
            self._queue.append(order)
        else:
            self._counter.settle(order, reply)

    async def _buy(self, order: Order) -> CallReply:
        body = order.request.body()
        course = _Course(order, body, self._budget.worst_case_usd(order.request, body))
        while True:
            await self._clearance(order)
            async with self._slots:
                attempt_id, sent_at = await self._open_attempt(course)
                result = await self._client.send(body)
                received_at = datetime.now(UTC)
            if isinstance(result, HttpReply):
                self._heard()
                status: int | None = result.status
                answer = read_reply(result.status, result.body, result.headers)
            else:
                status, answer = result.status, result
            if isinstance(answer, Answer) and isinstance(result, HttpReply):
                outcome = OutcomeRow(attempt_id, "reply", status)
                return await self._keep(course, result, answer, outcome, sent_at, received_at)
            if isinstance(answer, Fault):
                self._committer.outcome(OutcomeRow(attempt_id, "fault", status, answer.kind.value))
                await self._pause(course, answer)

    async def _clearance(self, order: Order) -> None:
        if not self._go.is_set():
            if self._pilot is None:
                self._pilot = order
                self._loop.call_later(_PILOT_S, self._go.set)
            if self._pilot is not order:
                await self._go.wait()
        await self._sleep_until(self._resume_s, order)

    async def _open_attempt(self, course: _Course) -> tuple[int, datetime]:
        order = course.order
        self._check(order)
        if course.sends == 0:
            self._budget.take_call()
        while not self._budget.reserve(course.worst_case_usd):
            self._settled.clear()
            await self._settled.wait()
            self._check(order)
        attempt_id, sent_at = self._ledger.new_attempt_id(), datetime.now(UTC)
        await self._committer.attempt(AttemptRow(attempt_id, order.request.key, sent_at))
        # A cap that others ran into does not take back what this call was granted.
        is_off = self._fatal is not None and not isinstance(self._fatal, BudgetReached)
        if is_off or order.is_dropped:
            self._committer.outcome(OutcomeRow(attempt_id, "not_sent"))
            self._budget.settle(course.worst_case_usd, 0.0)
            raise _Stopped
        if course.sends:
            self._counter.retried()
        course.sends += 1
        return attempt_id, sent_at

    async def _keep(
        self,
        course: _Course,
        reply: HttpReply,
        answer: Answer,
        outcome: OutcomeRow,
        sent_at: datetime,
        received_at: datetime,
    ) -> CallReply:
        request = course.order.request
        tokens = (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens)
        price = self._prices.lookup(request.model)
        cost_usd = None if price is None else price.cost_usd(*tokens)
        self._release(course, cost_usd)
        row = ReplyRow(
            request.key,
            request.endpoint_name,
            request.model,
            request.identity(),
            reply.body,
            reply.status,
            *tokens,
            cost_usd,
            sent_at,
            received_at,
        )
        earlier = await self._committer.reply(row, outcome)
        if earlier is not None:
            # Another process bought it meanwhile. What a rerun will read is what this run uses.
            return stored_reply(earlier)._replace(is_reused=False, cost_usd=cost_usd)
        return CallReply(
            request.key,
            reply.status,
            reply.body,
            answer.text,
            answer.refusal,
            answer.finish_reason,
            *tokens,
            cost_usd,
            False,
        )

    async def _pause(self, course: _Course, fault: Fault) -> None:
        """Returns after the pause that the table prescribes; raises where it says to stop."""
        rule, settings, now_s = RULES[fault.kind], self._settings, self._loop.time()
        self._release(course, None if rule.is_maybe_billed else 0.0)
        request = course.order.request
        error = fault_error(fault, self._endpoint, request.model, course.sends)
        pause_s = backoff_s(request.key, course.sends, fault, settings)
        if rule.action is Action.STOP:
            raise error
        if rule.action is Action.RECONNECT:
            self._refusals += 1
            if self._gone_since_s is None:
                self._gone_since_s = now_s
            gone_s = now_s - self._gone_since_s
            if self._has_answered:
                is_over = gone_s > settings.unreachable_patience_s
            else:
                is_over = self._refusals >= _FIRST_CONNECT_SENDS or gone_s > _FIRST_CONNECT_S
        else:
            self._heard_something()
            course.held_up_s += pause_s
            is_over = course.held_up_s > settings.rate_limit_patience_s
            if rule.action is Action.RETRY:
                course.faults += 1
                is_over = is_over or course.faults >= settings.max_attempts
        if is_over:
            raise error
        if rule.action is Action.RETRY_PATIENTLY and fault.retry_after_s:
            # The limit is the account's, not this call's: nobody knocks before it is over.
            self._resume_s = max(self._resume_s, now_s + fault.retry_after_s)
        await self._sleep_until(now_s + pause_s, course.order)

    def _release(self, course: _Course, cost_usd: float | None) -> None:
        self._budget.settle(course.worst_case_usd, cost_usd)
        self._settled.set()

    def _heard(self) -> None:
        self._go.set()
        self._heard_something()

    def _heard_something(self) -> None:
        self._has_answered = True
        self._gone_since_s = None

    def _check(self, order: Order) -> None:
        if self._fatal is not None or order.is_dropped:
            raise _Stopped

    async def _sleep_until(self, end_s: float, order: Order) -> None:
        self._check(order)
        while (left_s := end_s - self._loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._stirred.wait()
            self._check(order)


def stored_reply(found: LedgerReply) -> CallReply:
    """A reply of the ledger, read anew from its raw bytes.

    Raises:
        CallFailed: the stored bytes are no answer.
        LedgerCorrupt: they do not unpack.
    """
    body = found.body
    answer = read_reply(found.status, body)
    if isinstance(answer, Fault):
        raise CallFailed(
            f"Stored reply of key {found.request_key[:12]}: {clean_line(answer.message)}; expected "
            "an answer; delete that row of the ledger's table calls to buy it again"
        )
    return CallReply(
        found.request_key,
        found.status,
        body,
        answer.text,
        answer.refusal,
        answer.finish_reason,
        found.prompt_tokens,
        found.completion_tokens,
        found.cached_tokens,
        found.cost_usd,
        True,
    )


def again(error: BaseException) -> BaseException:
    """A fresh copy of an error, so that threads which raise it do not share one traceback."""
    return type(error)(*error.args) if isinstance(error, LlmError | WarehouseError) else error
