"""Buys chat completions through the Batches endpoint, at batch price and each at most once.

It knows no prompt, no verdict and no flow. What must outlive the process is in the batch store and
in the ledger; a buyer that is killed at any point is followed by one that goes on from there.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from tasks._llm.batch_client import BatchClient
from tasks._llm.batch_files import input_line
from tasks._llm.batch_plan import Caps, groups_of
from tasks._llm.batch_reader import BatchReader, Harvest, failure_of
from tasks._llm.batch_sender import BatchSender
from tasks._llm.batch_store import BatchStore, NewLine
from tasks._llm.batch_types import (
    OPEN_STATUSES,
    BatchCancelled,
    BatchCard,
    BatchRejected,
    BatchSettings,
    BatchUnknown,
    BatchView,
    Submission,
)
from tasks._llm.buyer import again, stored_reply
from tasks._llm.errors import (
    BudgetReached,
    CallFailed,
    EngineStopped,
    LlmError,
    RequestInvalid,
    clean_line,
)
from tasks._llm.prices import PriceTable
from tasks._llm.types import CallReply, CallRequest, CallTally, Endpoint, Progress
from warehouse.ledger import Ledger

_CHUNK = 1000
# The endpoint holds as much as it takes from this account; it says so by refusing a whole batch.
_FULL_CODES = frozenset({"token_limit_exceeded", "enqueued_token_limit_exceeded"})


class BatchBuyer:
    """The batch twin of `CompletionEngine`: same requests in, same replies out, hours later.

    Safe to use from several threads and several processes on one ledger. Every reply is in the
    ledger before it is returned. Interrupting it loses nothing: batches go on at the endpoint,
    and the next `complete` of the same requests collects them.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint],
        ledger: Ledger,
        store: BatchStore,
        settings: BatchSettings,
        prices: PriceTable,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            endpoint: Gives the server; called once, and only when it is needed.
            ledger: Asked first, and told everything.
            store: Where batches are remembered, on the ledger's own database.
            settings: Sizes, pauses, caps.
            prices: For the cost of each reply, by its batch factor.
            on_progress: Called after every look at the batches from a thread that waits.
        """
        self._get_endpoint = endpoint
        self._ledger = ledger
        self._store = store
        self._settings = settings
        self._prices = prices
        self._on_progress = on_progress
        self._caps = Caps(settings, prices)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pass_lock = threading.Lock()
        self._submit_lock = threading.Lock()
        self._wanted: set[str] = set()
        # Collected here and not yet handed to a caller of `complete`, who made them.
        self._fresh: set[str] = set()
        self._failures: dict[str, LlmError] = {}
        self._tally = CallTally()
        self._total_known = 0
        self._started_s = time.monotonic()
        self._open_before: frozenset[str] | None = None
        self._looked_s = -float("inf")
        self._hold_until_s = -float("inf")
        self._max_lines = settings.max_lines
        self._parts: tuple[Endpoint, BatchClient, BatchSender, BatchReader] | None = None

    def __enter__(self) -> "BatchBuyer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def complete(self, requests: Sequence[CallRequest]) -> list[CallReply]:
        """Answers requests, from the ledger where it can and through batches where it must.

        Args:
            requests: Any number; duplicates are bought once. The replies are in memory together;
                for very many use `buy` and read them from the ledger shard by shard.

        Returns:
            One reply a request, in order.

        Raises:
            LlmError: a call failed for good, a cap was reached or the buyer was closed; what was
                bought is in the ledger, and batches that are out are collected by the next run.
            WarehouseError: the ledger failed.
        """
        keys = [request.key for request in requests]
        held = self._ledger.lookup(keys)
        if len(held) < len(set(keys)):
            missing = [request for request in requests if request.key not in held]
            self.buy(lambda: missing)
            held = self._ledger.lookup(keys)
        replies: list[CallReply] = []
        for key in keys:
            if key not in held:
                raise CallFailed(
                    f"Call {key[:12]}: another process gave it up; expected a reply in the "
                    "ledger; run again"
                )
            with self._lock:
                is_fresh = key in self._fresh
                self._fresh.discard(key)
                if not is_fresh:
                    self._tally = self._tally._replace(reused=self._tally.reused + 1)
                    self._total_known += 1
            replies.append(stored_reply(held[key])._replace(is_reused=not is_fresh))
        self._report()
        return replies

    def buy(self, requests: Callable[[], Iterable[CallRequest]]) -> CallTally:
        """Like `complete`, without the replies: memory holds the keys and no texts.

        Below a cap of money it goes on in further batches once the first have told what they
        cost.

        Args:
            requests: Gives the calls; asked again for each further round of batches.

        Returns:
            `tally` at the end.
        """
        while True:
            mine, capped = self._submit(requests())
            self.wait(mine)
            if capped is None:
                return self.tally()
            if not mine or not self._caps.is_worth_a_round():
                raise capped

    def submit(self, requests: Iterable[CallRequest]) -> set[str]:
        """Sends what neither the ledger holds nor a batch is out for, and waits for no reply.

        Args:
            requests: Any number; read in chunks.

        Returns:
            The keys that wait for a reply.

        Raises:
            BudgetReached: a cap; what fits below it is sent, and collected by the next run.
            LlmError: the endpoint refuses or cannot be reached.
        """
        mine, capped = self._submit(requests)
        if capped is not None:
            raise capped
        return mine

    def _submit(self, requests: Iterable[CallRequest]) -> tuple[set[str], BudgetReached | None]:
        self._check_open()
        mine: set[str] = set()
        capped: BudgetReached | None = None
        source = iter(requests)
        while chunk := list(islice(source, _CHUNK)):
            with self._submit_lock:
                capped = self._add_chunk(chunk, mine) or capped
        if mine:
            self._pass(is_forced=True)
        return mine, capped

    def _add_chunk(self, chunk: Sequence[CallRequest], mine: set[str]) -> BudgetReached | None:
        unique = {request.key: request for request in chunk if request.key not in mine}
        held = self._ledger.held(unique)
        missing = {key: request for key, request in unique.items() if key not in held}
        accepted = self._store.waiting(missing)
        capped: BudgetReached | None = None
        new: list[NewLine] = []
        for key, request in missing.items():
            if key in accepted:
                continue
            try:
                # Another thread may be settling what batches have brought.
                with self._lock:
                    body = self._caps.admit(request)
            except BudgetReached as error:
                capped = error
                break
            n_bytes = len(input_line(key, body))
            name, model = request.endpoint_name, request.model
            new.append(NewLine(key, name, model, request.identity(), n_bytes))
        self._caps.check_sizes(new)
        self._check_endpoint(new)
        self._store.add_lines(new)
        accepted |= {line.request_key for line in new}
        mine |= accepted
        with self._lock:
            self._wanted |= accepted
            self._total_known += len(accepted)
        return capped

    def wait(self, keys: set[str]) -> None:
        """Looks at the batches until none of these keys waits for a reply.

        Raises:
            LlmError: a call failed for good, or the buyer was closed.
        """
        while True:
            self._check_open()
            with self._lock:
                failed = [self._failures[key] for key in keys if key in self._failures]
                is_waiting = not self._wanted.isdisjoint(keys)
            if not is_waiting:
                break
            self._pass(is_forced=False)
            self._report()
            with self._lock:
                is_waiting = not self._wanted.isdisjoint(keys)
            if is_waiting and self._stop.wait(self._settings.poll_s):
                self._check_open()
        if failed:
            with self._lock:
                for key in keys:
                    self._failures.pop(key, None)
            raise again(failure_of(failed))

    def list_batches(self, *, is_open: bool = False) -> list[BatchView]:
        """The batches of this endpoint that the store knows, oldest first.

        Args:
            is_open: Only those that may still bring replies. The endpoint is asked about these.
        """
        endpoint, client, _, _ = self._get_parts()
        views: list[BatchView] = []
        for one in self._store.submissions(endpoint.name, is_open=is_open):
            is_out = one.state == "sent" and one.batch_id is not None
            card = None
            status = one.end_status or one.state
            if is_out and one.batch_id is not None:
                try:
                    card = client.retrieve(one.batch_id)
                    status = card.status
                except BatchUnknown:
                    status = "unknown to the endpoint"
            views.append(
                BatchView(
                    one.batch_id,
                    one.submission_id,
                    one.model,
                    status,
                    one.n_lines,
                    card.n_completed if card else None,
                    card.n_failed if card else None,
                    one.planned_at,
                    one.state != "closed",
                )
            )
        return views

    def collect(self) -> CallTally:
        """Stores what ended batches have brought; sends nothing and waits for nothing.

        Returns:
            `tally` after that.

        Raises:
            BatchUnknown: the endpoint does not know a batch that was made there.
        """
        self._check_open()
        endpoint = self._get_parts()[0]
        with self._pass_lock:
            self._collect(endpoint)
        return self.tally()

    def cancel(self, batch_id: str) -> str:
        """Cancels a batch at the endpoint; what it has finished is still collected and kept.

        Returns:
            The endpoint's status of the batch, often "cancelling" for some minutes; that of a
            batch that has ended is only told.

        Raises:
            BatchUnknown: neither side knows the batch.
        """
        self._find(batch_id)
        client = self._get_parts()[1]
        status = client.retrieve(batch_id).status
        return client.cancel(batch_id).status if status in OPEN_STATUSES else status

    def forget(self, batch_id: str) -> int:
        """Gives up a batch whose replies can no longer be had; its calls may be bought again.

        Returns:
            The number of calls in it.

        Raises:
            BatchUnknown: the store does not know the batch.
        """
        submission = self._find(batch_id)
        self._get_parts()[3].let_go(submission, is_executed=True)
        self._store.finish(submission.submission_id, "forgotten", (), is_try=False)
        return submission.n_lines

    def tally(self) -> CallTally:
        """Sums so far; ``retries`` counts lines that were sent in one more batch."""
        with self._lock:
            return self._tally

    def close(self) -> None:
        """Ends every wait; batches that are out stay out, and the store remembers them."""
        self._stop.set()
        if self._parts is not None:
            self._parts[1].close()

    def _find(self, batch_id: str) -> Submission:
        endpoint = self._get_parts()[0]
        for one in self._store.submissions(endpoint.name, is_open=False):
            if batch_id in (one.batch_id, one.submission_id):
                return one
        raise BatchUnknown(
            f"Batch {clean_line(batch_id, 80)}: the ledger at hand has no such batch at "
            f"{endpoint.shown_url}; expected one that `pref batch list` shows"
        )

    def _get_parts(self) -> tuple[Endpoint, BatchClient, BatchSender, BatchReader]:
        with self._lock:
            if self._parts is None:
                endpoint = self._get_endpoint()
                settings = self._settings
                client = BatchClient(endpoint, settings, self._stop)
                self._parts = (
                    endpoint,
                    client,
                    BatchSender(client, self._store, self._ledger, settings, self._stop),
                    BatchReader(
                        endpoint, client, self._store, self._ledger, settings, self._prices
                    ),
                )
            return self._parts

    def _pass(self, *, is_forced: bool) -> None:
        """One look at everything: collect what has ended, plan and send what waits."""
        with self._pass_lock:
            is_fresh = time.monotonic() - self._looked_s < self._settings.poll_s / 2
            if is_fresh and not is_forced:
                return
            endpoint = self._get_parts()[0]
            self._collect(endpoint)
            self._plan(endpoint)
            self._send(endpoint)
            self._looked_s = time.monotonic()
            self._drop_settled(endpoint)

    def _collect(self, endpoint: Endpoint) -> None:
        client = self._get_parts()[1]
        for submission in self._store.submissions(endpoint.name, is_open=True):
            if submission.state != "sent" or submission.batch_id is None:
                continue
            try:
                card = client.retrieve(submission.batch_id)
                if card.status in OPEN_STATUSES:
                    continue
                self._close(submission, card)
            except BatchUnknown:
                if not self._settings.resubmits_unknown:
                    raise
                self._give_up(submission, is_executed=True)

    def _give_up(self, submission: Submission, *, is_executed: bool) -> None:
        """Its lines wait for another batch."""
        keys = self._get_parts()[3].let_go(submission, is_executed=is_executed)
        self._store.finish(submission.submission_id, "unknown", keys, is_try=True)

    def _close(self, submission: Submission, card: BatchCard) -> None:
        if card.status == "failed":
            self._refused(submission, card)
            return
        harvest = self._get_parts()[3].collect(submission, card)
        if card.status == "cancelled":
            stopped = BatchCancelled(
                f"Batch {card.batch_id}: it was cancelled with {len(harvest.again)} calls left; "
                "expected it to complete; run again to send them, finished calls are kept"
            )
            failures = {key: stopped for key in harvest.again} | harvest.failures
            harvest = harvest._replace(again=[], failures=failures)
        is_ours = self._store.finish(
            submission.submission_id, card.status, harvest.again, is_try=True
        )
        with self._lock:
            self._failures.update(
                (key, error) for key, error in harvest.failures.items() if key in self._wanted
            )
            if is_ours:
                self._add(harvest)
                self._fresh |= harvest.bought.keys()
                self._caps.settle(harvest.bought)

    def _refused(self, submission: Submission, card: BatchCard) -> None:
        """The endpoint has executed nothing of this batch."""
        name = submission.submission_id
        keys = self._get_parts()[3].let_go(submission, is_executed=False)
        if card.error_code in _FULL_CODES:
            endpoint = self._get_parts()[0]
            others = self._store.submissions(endpoint.name, is_open=True)
            is_alone = len(others) == 1
            if is_alone and submission.n_lines > 1:
                # Nothing of ours is enqueued beside it: this batch alone is too much.
                self._max_lines = max(1, submission.n_lines // 2)
            if not is_alone or submission.n_lines > 1:
                self._hold_until_s = time.monotonic() + self._settings.requeue_s
                self._store.finish(name, "failed", keys, is_try=False)
                return
        error = BatchRejected(
            f"Batch {card.batch_id}: the endpoint refused it ({clean_line(card.error_code, 40)}: "
            f"{clean_line(card.error)}); expected it to run; correct the requests or the limit "
            "of the account and run again"
        )
        self._store.finish(name, "failed", (), is_try=True)
        with self._lock:
            self._failures.update((key, error) for key in keys if key in self._wanted)

    def _plan(self, endpoint: Endpoint) -> None:
        if time.monotonic() < self._hold_until_s:
            return
        with self._lock:
            wanted = set(self._wanted)
        pending = [line for line in self._store.pending(endpoint.name) if line[1] in wanted]
        if not pending:
            return
        # Bought in another way since the line was written, or before a crash could delete it;
        # or being bought call by call at this moment.
        held, taken = self._ledger.standing(key for _, key, _ in pending)
        if held:
            self._store.forget_pending(held)
            with self._lock:
                self._wanted.difference_update(held)
        lines = [line for line in pending if line[1] not in held and line[1] not in taken]
        for model, keys in groups_of(lines, self._max_lines, self._settings.max_bytes):
            self._store.plan(endpoint.name, model, keys, self._get_parts()[2].holder)

    def _send(self, endpoint: Endpoint) -> None:
        sender = self._get_parts()[2]
        for submission in self._store.submissions(endpoint.name, is_open=True):
            if submission.state not in ("planned", "uploaded"):
                continue
            try:
                sender.send(submission)
            except BatchUnknown:
                # Its input file is gone, so no batch can have been made from it.
                if not self._settings.resubmits_unknown:
                    raise
                self._give_up(submission, is_executed=False)

    def _drop_settled(self, endpoint: Endpoint) -> None:
        """Keys without a line are bought, or given up; this process may not have done it."""
        names = (one.submission_id for one in self._store.submissions(endpoint.name, is_open=True))
        now_open = frozenset(names)
        if now_open == self._open_before and now_open:
            return
        self._open_before = now_open
        with self._lock:
            wanted = set(self._wanted)
        left = self._store.waiting(wanted)
        with self._lock:
            self._wanted -= wanted - left

    def _add(self, harvest: Harvest) -> None:
        old, new = self._tally, harvest.tally
        self._tally = CallTally(
            old.made + new.made,
            old.reused,
            old.prompt_tokens + new.prompt_tokens,
            old.completion_tokens + new.completion_tokens,
            old.cost_usd + new.cost_usd,
            old.reused_cost_usd,
            old.retries + len(harvest.again),
            old.unpriced + new.unpriced,
        )

    def _check_endpoint(self, lines: Sequence[NewLine]) -> None:
        names = {line.endpoint_name for line in lines}
        if names and names != {self._get_parts()[0].name}:
            others = sorted(names - {self._get_parts()[0].name})
            raise RequestInvalid(
                f"Request for endpoint {clean_line(others[0], 80)!r}: this buyer sends batches to "
                f"{clean_line(self._get_parts()[0].name, 80)!r}; use the buyer of that endpoint"
            )

    def _check_open(self) -> None:
        if self._stop.is_set():
            raise EngineStopped(
                "Batch mode: it is closed; batches go on at the endpoint; run again to collect"
            )

    def _report(self) -> None:
        if self._on_progress is None:
            return
        tally = self.tally()
        rate = tally.made / max(time.monotonic() - self._started_s, 1e-3)
        done = tally.made + tally.reused
        self._on_progress(
            Progress(done, self._total_known, tally.made, tally.reused, tally.cost_usd, rate)
        )
