"""Files and Batches of an OpenAI-compatible endpoint, each request repeated where that is safe.

It knows no ledger and no store. A batch is never created twice for one submission: where the
answer to a creation was not seen, it looks for the batch before it asks again.
"""

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from threading import Event
from typing import Any, NoReturn, TypeVar

import httpx2
import openai
from openai.types import Batch, FileObject

from tasks._llm.batch_types import BatchCard, BatchSettings, BatchUnknown, BatchUnsupported
from tasks._llm.errors import EngineStopped, LlmError, clean_line
from tasks._llm.replies import read_reply
from tasks._llm.retry import RULES, Action, Fault, FaultKind
from tasks._llm.types import Endpoint

T = TypeVar("T")

# The name under which a batch's metadata carry our submission.
METADATA_NAME = "pref_submission"
_PAGES = 200
_CHUNK_BYTES = 2**18
# Faults after which the request cannot have had an effect.
_NOT_DONE = frozenset(
    {
        FaultKind.RATE_LIMITED,
        FaultKind.UNREACHABLE,
        FaultKind.NAME_UNKNOWN,
        FaultKind.QUOTA,
        FaultKind.KEY_REJECTED,
    }
)


class _Failed(Exception):
    """One send that brought nothing usable."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


class BatchClient:
    """The batch side of one endpoint; safe to use from several threads."""

    def __init__(self, endpoint: Endpoint, settings: BatchSettings, stop: Event) -> None:
        """Opens no connection yet.

        Args:
            endpoint: Where batches are made.
            settings: Timeouts and retries.
            stop: Set by another thread, it ends every pause.
        """
        self._endpoint = endpoint
        self._settings = settings
        self._stop = stop
        key = endpoint.api_key
        self._sdk = openai.OpenAI(
            # The SDK refuses to be built without a key.
            api_key=(key.reveal() if key else "") or "no-key-needed",
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=settings.timeout_s,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False, trust_env=not _is_loopback(endpoint.host)
            ),
        )

    def close(self) -> None:
        """Closes all connections."""
        self._sdk.close()

    def upload(self, path: Path, name: str) -> str:
        """Uploads an input file; an upload whose answer is lost leaves a file nobody uses.

        Returns:
            The endpoint's id of the file.
        """

        def send() -> str:
            with path.open("rb") as file:
                card = self._sdk.files.create(
                    file=(name, file),
                    purpose="batch",
                    timeout=self._settings.upload_timeout_s,
                )
            if not isinstance(card, FileObject) or not card.id:
                raise _Failed(Fault(FaultKind.NOT_JSON, "the reply is no file object", 200))
            return card.id

        return self._repeat(send)

    def create(self, file_id: str, submission_id: str) -> BatchCard:
        """Creates the batch of a submission, once.

        Raises:
            LlmError: the endpoint refuses, or cannot be reached.
        """
        sends = 0
        while True:
            sends += 1
            try:
                return self._once(
                    lambda: _card(
                        self._sdk.batches.create(
                            input_file_id=file_id,
                            endpoint="/v1/chat/completions",
                            completion_window="24h",
                            metadata={METADATA_NAME: submission_id},
                        )
                    )
                )
            except _Failed as failed:
                fault = failed.fault
            rule = RULES[fault.kind]
            if rule.action is Action.STOP or sends >= self._settings.max_attempts:
                self._raise(fault, sends)
            if fault.kind in _NOT_DONE:
                self._pause(sends, fault)
                continue
            self._sleep(self._settings.settle_s)
            found = self.find(submission_id, file_id)
            if found is not None:
                return found

    def find(self, submission_id: str, file_id: str) -> BatchCard | None:
        """The batch that was made for a submission, or None."""
        for card in self.all():
            if card.submission_id == submission_id or card.input_file_id == file_id:
                return card
        return None

    def all(self) -> Iterator[BatchCard]:
        """Every batch that the endpoint lists, in its order."""
        after: str | None = None
        for _ in range(_PAGES):
            start = openai.omit if after is None else after

            def ask(start: Any = start) -> Any:
                return self._sdk.batches.list(limit=100, after=start)

            page = self._repeat(ask)
            found = getattr(page, "data", None)
            if not isinstance(found, list):
                self._raise(Fault(FaultKind.NOT_JSON, "the reply is no list of batches", 200), 1)
            cards = [_card(one) for one in found]
            yield from cards
            if not cards or not getattr(page, "has_more", False):
                return
            after = cards[-1].batch_id

    def retrieve(self, batch_id: str) -> BatchCard:
        """One batch as it stands.

        Raises:
            BatchUnknown: the endpoint does not know it.
        """
        return self._repeat(lambda: _card(self._sdk.batches.retrieve(batch_id)), batch_id)

    def cancel(self, batch_id: str) -> BatchCard:
        """Asks the endpoint to cancel a batch; what is finished stays and can be read.

        Raises:
            BatchUnknown: the endpoint does not know it.
        """
        return self._repeat(lambda: _card(self._sdk.batches.cancel(batch_id)), batch_id)

    def download(self, file_id: str, to: Path) -> None:
        """Writes a file of the endpoint to disk, whole or not at all.

        Raises:
            BatchUnknown: the endpoint does not know the file.
        """

        def fetch() -> None:
            with (
                self._sdk.files.with_streaming_response.content(
                    file_id, timeout=self._settings.upload_timeout_s
                ) as response,
                to.open("wb") as file,
            ):
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    file.write(chunk)

        self._repeat(fetch, file_id)

    def _repeat(self, send: Callable[[], T], wanted: str | None = None) -> T:
        sends = 0
        while True:
            sends += 1
            try:
                return self._once(send)
            except _Failed as failed:
                fault = failed.fault
            if wanted is not None and fault.status == 404:
                raise BatchUnknown(
                    f"Batch endpoint {self._endpoint.shown_url}: it does not know "
                    f"{clean_line(wanted, 80)}; expected what was made there earlier; use the key "
                    "of the account that made it, or forget the batch to buy its calls again"
                )
            is_final = RULES[fault.kind].action is Action.STOP
            if is_final or sends >= self._settings.max_attempts:
                self._raise(fault, sends)
            self._pause(sends, fault)

    def _once(self, send: Callable[[], T]) -> T:
        """One send; every way it can fail is a `_Failed`, without the request in its chain."""
        try:
            return send()
        except _Failed as failed:
            fault = failed.fault
        except openai.APIStatusError as error:
            fault = _status_fault(error)
        except openai.APITimeoutError:
            fault = Fault(FaultKind.TIMEOUT, "no whole reply in time")
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            cause = error.__cause__ or error
            is_refused = isinstance(cause, httpx2.ConnectError)
            kind = FaultKind.UNREACHABLE if is_refused else FaultKind.CONNECTION_LOST
            if isinstance(error, ValueError):
                kind = FaultKind.NOT_JSON
            fault = Fault(kind, f"{type(cause).__name__}: {cause}")
        except RuntimeError:
            # What a request says whose client another thread has closed.
            self._check_open()
            raise
        self._check_open()
        raise _Failed(fault)

    def _pause(self, sends: int, fault: Fault) -> None:
        doubled = self._settings.backoff_s * 2.0 ** min(sends - 1, 30)
        self._sleep(max(min(doubled, self._settings.backoff_cap_s), fault.retry_after_s or 0.0))

    def _sleep(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while not self._stop.is_set() and (left_s := end_s - time.monotonic()) > 0:
            self._stop.wait(left_s)
        self._check_open()

    def _check_open(self) -> None:
        if self._stop.is_set():
            raise EngineStopped(
                "Batch mode: it was closed; batches go on at the endpoint; run again to collect"
            )

    def _raise(self, fault: Fault, sends: int) -> NoReturn:
        rule = RULES[fault.kind]
        key = self._endpoint.api_key
        said = clean_line(key.scrub(fault.message) if key else fault.message)
        status = f"HTTP {fault.status}, " if fault.status else ""
        tries = f" after {sends} sends" if sends > 1 else ""
        kind: type[LlmError] = rule.error
        remedy = rule.remedy
        if fault.status in (404, 405, 501):
            kind, remedy = BatchUnsupported, "use an endpoint with Files and Batches, or mode sync"
        raise kind(
            f"Batch endpoint {self._endpoint.shown_url}: {fault.kind} ({status}{said}){tries}; "
            f"expected Files and Batches to answer; {remedy}"
        )


def _status_fault(error: openai.APIStatusError) -> Fault:
    response = error.response
    try:
        body = response.content
    except httpx2.HTTPError:
        # A streamed reply whose body never came.
        body = b""
    read = read_reply(response.status_code, body, response.headers)
    if isinstance(read, Fault):
        return read
    return Fault(FaultKind.REFUSED, "the reply is no batch", response.status_code)


def _card(batch: Any) -> BatchCard:
    if not isinstance(batch, Batch) or not batch.id or not batch.status:
        # A server that says 200 to everything answers with a page, or with another object.
        raise _Failed(Fault(FaultKind.NOT_JSON, "the reply is no batch object", 200))
    counts, errors = batch.request_counts, batch.errors
    first = errors.data[0] if errors and errors.data else None
    return BatchCard(
        batch.id,
        batch.status,
        batch.input_file_id,
        batch.output_file_id,
        batch.error_file_id,
        (batch.metadata or {}).get(METADATA_NAME),
        counts.completed if counts else 0,
        counts.failed if counts else 0,
        (first.code or "") if first else "",
        (first.message or "") if first else "",
    )


def _is_loopback(host: str) -> bool:
    # A proxy from the environment must not stand before this very machine.
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
