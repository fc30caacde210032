"""Reads what an ended batch brought, stores every reply, and sorts out what is to be sent again.

It sends no batch.
"""

import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tasks._llm.batch_client import BatchClient
from tasks._llm.batch_files import LineReply, read_lines
from tasks._llm.batch_store import BatchStore, Line
from tasks._llm.batch_types import BatchCard, BatchSettings, Submission
from tasks._llm.errors import LlmError
from tasks._llm.prices import PriceTable
from tasks._llm.replies import Answer, read_reply
from tasks._llm.retry import RULES, Action, Fault, FaultKind, fault_error
from tasks._llm.types import CallTally, Endpoint
from warehouse.ledger import Ledger
from warehouse.ledger_owner import batch_owner
from warehouse.ledger_rows import OutcomeRow, ReplyRow

_GROUP_LINES = 500


class Harvest(NamedTuple):
    """What one batch brought.

    Attributes:
        tally: Of the replies stored.
        bought: US$ by key of the replies stored; None where that is not known.
        again: Keys that wait for another batch.
        failures: Error by key, for calls that another batch cannot mend.
    """

    tally: CallTally
    bought: dict[str, float | None]
    again: list[str]
    failures: dict[str, LlmError]


class BatchReader:
    """Collects ended batches of one endpoint. Collecting one twice stores nothing twice."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: BatchClient,
        store: BatchStore,
        ledger: Ledger,
        settings: BatchSettings,
        prices: PriceTable,
    ) -> None:
        self._endpoint = endpoint
        self._client = client
        self._store = store
        self._ledger = ledger
        self._settings = settings
        self._prices = prices

    def collect(self, submission: Submission, card: BatchCard) -> Harvest:
        """Stores every reply of an ended batch.

        Args:
            submission: Whose batch it is.
            card: Its last state, with its files.

        Returns:
            What was bought and what is left; the store is not changed.
        """
        tally = CallTally()
        answered: dict[str, float | None] = {}
        faults: dict[str, Fault] = {}
        with tempfile.TemporaryDirectory(prefix="pref-batch-") as folder:
            for file_id in (card.output_file_id, card.error_file_id):
                if file_id is None:
                    continue
                path = Path(folder) / "lines.jsonl"
                self._client.download(file_id, path)
                for group in _groups(read_lines(path)):
                    tally = self._store_group(submission, group, tally, answered, faults)
        return self._sort_out(submission, tally, answered, faults)

    def _store_group(
        self,
        submission: Submission,
        group: list[LineReply],
        tally: CallTally,
        answered: dict[str, float | None],
        faults: dict[str, Fault],
    ) -> CallTally:
        keys = {line.custom_id for line in group}
        lines = self._store.lines_among(submission.submission_id, keys)
        replies: dict[str, ReplyRow] = {}
        outcomes: list[OutcomeRow] = []
        for read in group:
            line = lines.get(read.custom_id)
            if line is None or read.custom_id in answered:
                continue
            answer = self._read(read)
            if isinstance(answer, Fault):
                faults[read.custom_id] = answer
                if line.attempt_id is not None:
                    kind = None if read.status is None else answer.kind.value
                    outcome = "not_sent" if read.status is None else "fault"
                    outcomes.append(OutcomeRow(line.attempt_id, outcome, read.status, kind))
                continue
            row = self._row(submission, line, read, answer)
            replies[read.custom_id] = row
            answered[read.custom_id] = row.cost_usd
            faults.pop(read.custom_id, None)
            if line.attempt_id is not None:
                outcomes.append(OutcomeRow(line.attempt_id, "reply", read.status))
            tally = _with_reply(tally, row)
        # Waited for: a reply is committed before its line is forgotten.
        self._ledger.record(replies=list(replies.values()), outcomes=outcomes).result()
        return tally

    @staticmethod
    def _read(line: LineReply) -> Answer | Fault:
        if line.status is None:
            return Fault(FaultKind.SERVER_ERROR, f"not executed: {line.code}")
        return read_reply(line.status, line.body)

    def _row(self, submission: Submission, line: Line, read: LineReply, answer: Answer) -> ReplyRow:
        tokens = (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens)
        price = self._prices.lookup(submission.model)
        key = self._endpoint.api_key
        return ReplyRow(
            line.request_key,
            submission.endpoint_name,
            submission.model,
            line.request,
            key.scrub_bytes(read.body) if key else read.body,
            read.status or 0,
            *tokens,
            None if price is None else price.cost_usd(*tokens, is_batch=True),
            submission.create_began_at or submission.planned_at,
            datetime.now(UTC),
        )

    def let_go(self, submission: Submission, *, is_executed: bool) -> list[str]:
        """Ends the claims of a batch that brings nothing.

        Args:
            submission: Whose batch it was.
            is_executed: Whether some of it may have been executed, and billed; if not, the
                ledger is told that nothing was sent.

        Returns:
            Its keys.
        """
        keys: list[str] = []
        lines = self._store.lines(submission.submission_id)
        while group := list(islice(lines, _GROUP_LINES)):
            keys += [line.request_key for line in group]
            outcomes = [] if is_executed else [_not_sent(line) for line in group]
            self._end(submission, group, outcomes)
        return keys

    def _sort_out(
        self,
        submission: Submission,
        tally: CallTally,
        answered: dict[str, float | None],
        faults: dict[str, Fault],
    ) -> Harvest:
        again: list[str] = []
        failures: dict[str, LlmError] = {}
        lines = self._store.lines(submission.submission_id)
        while group := list(islice(lines, _GROUP_LINES)):
            outcomes: list[OutcomeRow] = []
            for line in group:
                if line.request_key in answered:
                    continue
                fault = faults.get(line.request_key)
                if fault is None:
                    fault = Fault(FaultKind.SERVER_ERROR, "the batch brought no line for it")
                    if line.attempt_id is not None:
                        outcomes.append(OutcomeRow(line.attempt_id, "fault", None, "missing"))
                is_final = RULES[fault.kind].action is Action.STOP
                if not is_final and line.tries + 1 < self._settings.max_tries:
                    again.append(line.request_key)
                else:
                    failures[line.request_key] = fault_error(
                        fault, self._endpoint, submission.model, line.tries + 1
                    )
            self._end(submission, group, outcomes)
        return Harvest(tally, answered, again, failures)

    def _end(self, submission: Submission, lines: list[Line], outcomes: list[OutcomeRow]) -> None:
        owner = batch_owner(submission.submission_id)
        ended = [(line.request_key, owner) for line in lines]
        self._ledger.record(outcomes=outcomes, ended=ended).result()


def failure_of(errors: Iterable[LlmError]) -> LlmError:
    """One error for the failures of many calls: the first, and how many there are."""
    found = list(errors)
    first = found[0]
    if len(found) == 1:
        return first
    return type(first)(f"{len(found)} calls of the batches failed, the first one: {first}")


def _not_sent(line: Line) -> OutcomeRow:
    return OutcomeRow(line.attempt_id or 0, "not_sent")


def _with_reply(tally: CallTally, row: ReplyRow) -> CallTally:
    return tally._replace(
        made=tally.made + 1,
        prompt_tokens=tally.prompt_tokens + (row.prompt_tokens or 0),
        completion_tokens=tally.completion_tokens + (row.completion_tokens or 0),
        cost_usd=tally.cost_usd + (row.cost_usd or 0.0),
        unpriced=tally.unpriced + (row.cost_usd is None),
    )


def _groups(lines: Iterator[LineReply]) -> Iterator[list[LineReply]]:
    while group := list(islice(lines, _GROUP_LINES)):
        yield group
