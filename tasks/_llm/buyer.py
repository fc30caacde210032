"""The event loop that makes the calls: claims, slots, retries, the end of a run.

Only the engine uses it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from tasks._llm.budget import Budget
from tasks._llm.client import ChatClient, HttpReply
from tasks._llm.commits import Committer
from tasks._llm.errors import (
    BudgetReached,
    CallInBatch,
    EngineStopped,
    LlmError,
    RequestInvalid,
    clean_line,
)
from tasks._llm.orders import Counter, Order
from tasks._llm.orders import again as again
from tasks._llm.orders import stored_reply as stored_reply
from tasks._llm.pacing import Pacer
from tasks._llm.patience import Patience
from tasks._llm.prices import PriceTable
from tasks._llm.replies import Answer, read_reply
from tasks._llm.retry import RULES, Fault, FaultKind
from tasks._llm.types import CallReply, Endpoint, EngineSettings
from warehouse.errors import WarehouseError
from warehouse.ledger import Ledger
from warehouse.ledger_owner import batch_of
from warehouse.ledger_rows import AttemptRow, LedgerReply, OutcomeRow, ReplyRow, Standing

# The first call goes alone, so that a wrong key or a dead server costs one call and not hundreds;
# but a slow model must not hold the others up.
_PILOT_S = 0.25
# Sends on record before a slot is free for them, at first; more where slots waited for a commit.
_READY_ORDERS = 32
_WATCH_S = 0.1
_WATCHED_KEYS = 2000
_BYTES_PER_TOKEN = 4


class _Send(NamedTuple):
    attempt_id: int
    sent_at: datetime
    order: Order


class Buyer:
    """One daemon thread with one event loop; orders in from any thread, replies out by callback.

    An order waits in a queue of references until a slot is about to be free; then it is claimed
    in the ledger together with others, its send goes on record in the same commit, and it is
    sent. A key that another process has claimed waits aside until its reply is in the ledger or
    its claim is free. An order has a task only while it is on the wire, and the number of orders
    that have left the queue is bounded, and with it the memory of the loop.
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
        self._pacer = Pacer(settings)
        self._patience = Patience(settings, endpoint)
        self._client = ChatClient(endpoint, settings)
        self._loop = asyncio.new_event_loop()
        self._committer = Committer(ledger, self._loop)
        self._queue: deque[Order] = deque()
        self._ready: deque[_Send] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pauses: dict[Order, asyncio.TimerHandle] = {}
        self._watched: dict[str, Order] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._claiming: asyncio.Task[None] | None = None
        self._n_ready = min(_READY_ORDERS, settings.max_in_flight)
        self._teller: asyncio.Task[None] | None = None
        self._leaving: list[Order] = []
        self._farewell: asyncio.Task[None] | None = None
        self._wake_up: asyncio.TimerHandle | None = None
        self._fatal: Exception | None = None
        self._has_pilot = False
        self._is_open = False
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
        while self._is_at_work():
            await asyncio.sleep(0.005)
        for task in (self._teller, self._watcher):
            if task is not None:
                await asyncio.wait([task])
        if self._fatal is not None:
            await self._tell(self._fatal)
        await self._client.close()

    def _enqueue(self, orders: Sequence[Order]) -> None:
        self._queue.extend(orders)
        self._pump()

    def _sweep(self) -> None:
        for send in [one for one in self._ready if one.order.is_dropped]:
            self._ready.remove(send)
            self._take_back(send)
        for order in [one for one in self._pauses if one.is_dropped]:
            self._pauses.pop(order).cancel()
            self._queue.append(order)
        for order in [one for one in self._watched.values() if one.is_dropped]:
            del self._watched[order.request.key]
            self._queue.append(order)
        waiting, self._queue = self._queue, deque()
        self._queue.extend(order for order in waiting if not self._is_off(order))
        self._pump()

    def _is_off(self, order: Order) -> bool:
        if not order.is_dropped:
            return False
        if order.is_claimed:
            # Its caller hears of it when the ledger says that it was not sent and may be claimed.
            self._unclaim(order)
            self._leaving.append(order)
            if self._farewell is None:
                self._farewell = self._loop.create_task(self._let_go())
            return True
        return self._counter.drop(order)

    async def _let_go(self) -> None:
        while self._leaving:
            leaving, self._leaving = self._leaving, []
            await self._committer.flush()
            self._queue.extend(order for order in leaving if not self._counter.drop(order))
        self._farewell = None
        self._pump()

    def _is_at_work(self) -> bool:
        return bool(self._tasks or self._ready or self._claiming or self._farewell)

    def _pump(self) -> None:
        """Does whatever can be done now; called after everything that happens."""
        if self._wake_up is not None:
            self._wake_up.cancel()
            self._wake_up = None
        if self._fatal is None or isinstance(self._fatal, BudgetReached):
            self._send_ready()
        else:
            while self._ready:
                self._take_back(self._ready.popleft())
        if self._fatal is None:
            self._claim_next()
        elif self._queue and not self._is_at_work() and self._teller is None:
            self._teller = self._loop.create_task(self._tell(self._fatal))

    def _wake_in(self, delay_s: float) -> None:
        if self._wake_up is None:
            self._wake_up = self._loop.call_later(delay_s, self._pump)

    def _send_ready(self) -> None:
        limit = self._settings.max_in_flight
        now_s = self._loop.time()
        while self._ready and len(self._tasks) < limit:
            held_s = self._pacer.wait_s(now_s)
            if held_s > 0:
                self._wake_in(held_s)
                return
            send = self._ready.popleft()
            order = send.order
            if order.is_dropped:
                self._committer.outcome(OutcomeRow(send.attempt_id, "not_sent"))
                self._release(order, 0.0)
                if not self._is_off(order):
                    self._queue.append(order)
                continue
            self._pacer.took(now_s, self._tokens_of(order))
            if order.sends:
                self._counter.retried()
            order.sends += 1
            task = self._loop.create_task(self._call(send))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _take_back(self, send: _Send) -> None:
        self._committer.outcome(OutcomeRow(send.attempt_id, "not_sent"))
        self._release(send.order, 0.0)
        self._queue.append(send.order)

    def _tokens_of(self, order: Order) -> int:
        wanted = order.request.sampling.get("max_tokens")
        return len(order.body) // _BYTES_PER_TOKEN + (wanted if isinstance(wanted, int) else 0)

    def _claim_next(self) -> None:
        if self._claiming is not None or not self._queue:
            return
        orders: list[Order] = []
        try:
            self._choose(orders)
        except Exception as error:
            self._stop(error)
        if orders:
            self._claiming = self._loop.create_task(self._claim(orders))

    def _choose(self, orders: list[Order]) -> None:
        """Moves orders from the queue into the list, as many as may soon be sent."""
        if not self._is_open:
            if self._has_pilot:
                return
            limit = 1
        else:
            limit = self._settings.max_in_flight + self._n_ready
        out = len(self._tasks) + len(self._ready)
        # Calls in a pause hold their bodies in memory; new ones wait until they are through.
        is_full = len(self._pauses) >= self._settings.max_in_flight
        while self._queue and out + len(orders) < limit:
            order = self._queue[0]
            if self._is_off(order):
                self._queue.popleft()
                continue
            if is_full and not order.sends:
                return
            if not order.body:
                order.body = order.request.body()
                order.worst_case_usd = self._budget.worst_case_usd(order.request, order.body)
            if not order.is_counted:
                self._budget.take_call()
                order.is_counted = True
            if not self._budget.reserve(order.worst_case_usd):
                return
            orders.append(self._queue.popleft())
        if orders and not self._is_open:
            self._has_pilot = True
            self._loop.call_later(_PILOT_S, self._open)

    async def _claim(self, orders: Sequence[Order]) -> None:
        sent_at = datetime.now(UTC)
        sends = [_Send(self._ledger.new_attempt_id(), sent_at, order) for order in orders]
        rows = [AttemptRow(one.attempt_id, one.order.request.key, sent_at) for one in sends]
        try:
            claims = await self._committer.claim(rows)
        except Exception as error:  # whatever it is, the callers must hear of it
            for order in orders:
                self._release(order, 0.0)
            self._queue.extend(orders)
            self._claiming = None
            self._stop(error)
            return
        limit = self._settings.max_in_flight
        if self._is_open and not self._ready and len(self._tasks) < limit:
            self._n_ready = min(self._n_ready * 2, limit)
        for one in sends:
            order, key = one.order, one.order.request.key
            if key in claims.granted:
                order.is_claimed = True
                self._ready.append(one)
                continue
            self._release(order, 0.0)
            self._budget.give_call_back()
            order.is_counted = False
            self._has_pilot = self._is_open
            if key in claims.held:
                self._use(order, claims.held[key])
            else:
                self._watched[key] = order
        if self._watched and self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())
        self._claiming = None
        self._pump()

    async def _watch(self) -> None:
        """Waits for keys that other processes buy, until they are bought or free."""
        while self._watched and self._fatal is None:
            await asyncio.sleep(_WATCH_S)
            keys = list(self._watched)[:_WATCHED_KEYS]
            try:
                standing = await self._loop.run_in_executor(None, self._ledger.standing, keys)
            except Exception as error:  # whatever it is, the callers must hear of it
                self._stop(error)
                break
            self._look_at(keys, standing)
        self._watcher = None
        if self._fatal is not None:
            self._stop(self._fatal)

    def _look_at(self, keys: Sequence[str], standing: Standing) -> None:
        for key in keys:
            order = self._watched.pop(key, None)
            if order is None:
                continue
            if key in standing.held:
                self._use(order, standing.held[key])
            elif (batch := batch_of(standing.taken.get(key, ""))) is not None:
                self._queue.append(order)
                self._stop(CallInBatch.of(key, batch))
            elif key in standing.taken:
                # At the end again: the next look is at those behind it.
                self._watched[key] = order
            else:
                self._queue.appendleft(order)
        self._pump()

    def _use(self, order: Order, found: LedgerReply) -> None:
        try:
            reply = stored_reply(found)
        except (LlmError, WarehouseError) as error:
            self._queue.append(order)
            self._stop(error)
        else:
            self._counter.settle(order, reply)

    def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            self._pump()

    async def _call(self, send: _Send) -> None:
        order = send.order
        sent_s = self._loop.time()
        try:
            result = await self._client.send(order.body)
            self._take(send, sent_s, result)
        except asyncio.CancelledError:
            self._release(order, None)
            self._queue.append(order)
        except Exception as error:  # whatever it is, the callers must hear of it
            self._release(order, None)
            self._queue.append(order)
            self._stop(error)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pump()

    def _take(self, send: _Send, sent_s: float, result: HttpReply | Fault) -> None:
        now_s = self._loop.time()
        if isinstance(result, HttpReply):
            self._open()
            self._patience.heard()
            self._pacer.learn(result.headers)
            answer = read_reply(result.status, result.body, result.headers)
            if isinstance(answer, Answer):
                self._pacer.accepted(sent_s, now_s)
                self._keep(send, result, answer)
                return
            fault, status = answer, result.status
        else:
            fault, status = result, result.status or 0
        outcome = OutcomeRow(send.attempt_id, "fault", status or None, fault.kind.value)
        self._committer.outcome(outcome)
        if fault.kind is FaultKind.RATE_LIMITED:
            self._pacer.refused(sent_s, now_s, fault.retry_after_s)
        else:
            self._pacer.accepted(sent_s, now_s)
        self._release(send.order, None if RULES[fault.kind].is_maybe_billed else 0.0)
        try:
            pause_s = self._patience.pause_s(send.order, fault, now_s)
        except LlmError as error:
            self._queue.append(send.order)
            self._stop(error)
            return
        if self._fatal is not None:
            self._queue.append(send.order)
            return
        resume = partial(self._resume, send.order)
        self._pauses[send.order] = self._loop.call_later(pause_s, resume)

    def _resume(self, order: Order) -> None:
        self._pauses.pop(order, None)
        self._queue.appendleft(order)
        if not self._is_open:
            # The pilot itself comes back.
            self._has_pilot = False
        self._pump()

    def _keep(self, send: _Send, reply: HttpReply, answer: Answer) -> None:
        request = send.order.request
        tokens = (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens)
        price = self._prices.lookup(request.model)
        cost_usd = None if price is None else price.cost_usd(*tokens)
        self._release(send.order, cost_usd)
        row = ReplyRow(
            request.key,
            request.endpoint_name,
            request.model,
            request.identity(),
            reply.body,
            reply.status,
            *tokens,
            cost_usd,
            send.sent_at,
            datetime.now(UTC),
        )
        bought = CallReply(
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
        outcome = OutcomeRow(send.attempt_id, "reply", reply.status)
        self._committer.reply(row, outcome, partial(self._kept, send.order, bought))

    def _kept(
        self, order: Order, bought: CallReply, earlier: LedgerReply | BaseException | None
    ) -> None:
        order.is_claimed = False
        if earlier is None:
            self._counter.settle(order, bought)
        elif isinstance(earlier, LedgerReply):
            # Another process bought it meanwhile. What a rerun will read is what this run uses.
            reply = stored_reply(earlier)
            self._counter.settle(order, reply._replace(is_reused=False, cost_usd=bought.cost_usd))
        else:
            self._queue.append(order)
            error = earlier if isinstance(earlier, Exception) else EngineStopped(str(earlier))
            self._stop(error)

    def _release(self, order: Order, cost_usd: float | None) -> None:
        self._budget.settle(order.worst_case_usd, cost_usd)

    def _unclaim(self, order: Order) -> None:
        if order.is_claimed:
            order.is_claimed = False
            self._committer.unclaim(order.request.key)

    def _stop(self, error: Exception) -> None:
        if self._fatal is None:
            self._fatal = error
            self._loop.call_later(self._settings.drain_s, self._cancel)
        for timer in self._pauses.values():
            timer.cancel()
        self._queue.extend(self._pauses)
        self._pauses.clear()
        self._queue.extend(self._watched.values())
        self._watched.clear()
        self._loop.call_soon(self._pump)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _tell(self, error: Exception) -> None:
        # Errors are told last, when everything that was on the wire is committed. The ledger's
        # own fault, if it has one, is the error to be told or comes with the next call.
        for order in self._queue:
            self._unclaim(order)
        await self._committer.flush()
        while self._queue:
            self._counter.settle(self._queue.popleft(), error)
        self._teller = None
