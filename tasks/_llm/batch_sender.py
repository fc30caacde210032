"""Sends planned batches, each once, whatever happens to the process in between.

It reads no replies. Every step is on record before the next one: planned, uploaded, about to be
created, sent. A process that finds a submission "about to be created" looks at the endpoint for
the batch before it creates one.
"""

import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from threading import Event

from tasks._llm.batch_client import BatchClient
from tasks._llm.batch_files import write_input
from tasks._llm.batch_store import BatchStore
from tasks._llm.batch_types import BatchSettings, Submission
from tasks._llm.errors import EngineStopped
from warehouse.ledger import Ledger
from warehouse.ledger_owner import batch_owner, is_surely_gone, new_owner
from warehouse.ledger_rows import AttemptRow, OutcomeRow

_GROUP_LINES = 500
# The endpoint ends a batch within a day; then its calls stay claimed until somebody collects it.
_CLAIM_S = 7 * 86_400.0


class BatchSender:
    """Brings open submissions of one endpoint from "planned" to "sent"."""

    def __init__(
        self,
        client: BatchClient,
        store: BatchStore,
        ledger: Ledger,
        settings: BatchSettings,
        stop: Event,
    ) -> None:
        self._client = client
        self._store = store
        self._ledger = ledger
        self._settings = settings
        self._stop = stop
        self.holder = new_owner()

    def send(self, submission: Submission) -> bool:
        """Sends one submission.

        Returns:
            True if the batch exists now; False where another process is sending it.

        Raises:
            LlmError: the endpoint refuses or cannot be reached; a later call goes on.
        """
        if not self._may_take(submission):
            return False
        taken = self._store.take(submission, self.holder, self._settings.lease_s)
        if taken is None:
            return False
        try:
            return self._send(taken)
        except BaseException:
            self._store.drop_holder(taken.submission_id, self.holder)
            raise

    def _may_take(self, submission: Submission) -> bool:
        holder, until = submission.holder, submission.lease_until
        if holder is None or holder == self.holder or until is None:
            return True
        return until < datetime.now(UTC) or is_surely_gone(holder)

    def _send(self, submission: Submission) -> bool:
        name, file_id = submission.submission_id, submission.file_id
        if file_id is not None and submission.create_began_at is not None:
            batch_id = self._find(submission, file_id)
            if batch_id is not None:
                return self._store.set_sent(name, self.holder, batch_id)
        n_left, n_lost = self._claim(submission)
        if not n_left:
            self._store.finish(name, "empty", (), is_try=False)
            return True
        if file_id is None or n_lost:
            file_id = self._upload(submission)
            if not self._store.set_uploaded(name, self.holder, file_id):
                return False
        if not self._store.begin_create(name, self.holder, self._settings.lease_s):
            return False
        card = self._client.create(file_id, name)
        return self._store.set_sent(name, self.holder, card.batch_id)

    def _upload(self, submission: Submission) -> str:
        with tempfile.TemporaryDirectory(prefix="pref-batch-") as folder:
            path = Path(folder) / "input.jsonl"
            lines = self._store.lines(submission.submission_id)
            write_input(path, ((line.request_key, line.request) for line in lines))
            return self._client.upload(path, f"pref-{submission.submission_id}.jsonl")

    def _find(self, submission: Submission, file_id: str) -> str | None:
        """The batch of a creation that nobody saw the end of.

        The endpoint may be a little behind in listing what it has just made.
        """
        began_at = submission.create_began_at or datetime.now(UTC)
        ready_at = began_at + timedelta(seconds=self._settings.settle_s)
        left_s = (ready_at - datetime.now(UTC)).total_seconds()
        end_s = time.monotonic() + min(left_s, self._settings.settle_s)
        while (pause_s := end_s - time.monotonic()) > 0:
            if self._stop.wait(pause_s):
                raise EngineStopped("Batch mode: it was closed; run again to go on")
        found = self._client.find(submission.submission_id, file_id)
        return None if found is None else found.batch_id

    def _claim(self, submission: Submission) -> tuple[int, int]:
        """Puts a send of every line on record, and lets go of lines that others are buying.

        Returns:
            How many lines stay, and how many went.
        """
        name = submission.submission_id
        n_left = n_lost = 0
        lines = self._store.lines(name)
        while group := list(islice(lines, _GROUP_LINES)):
            now = datetime.now(UTC)
            attempts = {line.request_key: self._ledger.new_attempt_id() for line in group}
            # Ids of an earlier try, which the endpoint's list shows never to have happened.
            earlier = [line.attempt_id for line in group if line.attempt_id is not None]
            self._store.set_attempts(attempts)
            rows = [AttemptRow(attempt, key, now) for key, attempt in attempts.items()]
            self._ledger.record(outcomes=[OutcomeRow(one, "not_sent") for one in earlier]).result()
            claims = self._ledger.claim(rows, batch_owner(name), _CLAIM_S).result()
            lost = [key for key in attempts if key not in claims.granted]
            # What is bought is forgotten; what another is buying is looked at again later.
            self._store.release(name, lost)
            self._store.forget_pending(claims.held)
            n_left += len(group) - len(lost)
            n_lost += len(lost)
        if n_lost:
            self._store.count_lines(name)
        return n_left, n_lost
