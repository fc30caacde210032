"""Looks after batches between runs: lists, collects, cancels, gives up. It plans and sends none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tasks._engines import SIMULATOR, endpoint_of_name
from tasks._llm.batch import BatchBuyer
from tasks._llm.batch_store import open_batch_store
from tasks._llm.batch_types import BatchSettings, BatchUnknown, BatchView, Submission
from tasks._llm.errors import clean_line
from tasks._llm.prices import load_prices
from tasks._settings import read_environment
from tasks.errors import InputRejected
from warehouse.ledger import open_ledger
from warehouse.store import Warehouse


class BatchDesk:
    """The batches that a warehouse's ledger remembers, at whatever endpoints they are.

    Args:
        warehouse: Whose ledger; PREF_LEDGER_URL wins.
        base_url: The endpoint's address where its name is not enough, as with credentials in it.
        prices: A price table of one's own, for the cost of what is collected.

    Raises:
        InputRejected: There is no ledger.
        LedgerError, BatchStoreError: It cannot be opened.
    """

    def __init__(
        self, warehouse: Warehouse, base_url: str | None = None, prices: str | None = None
    ) -> None:
        path = warehouse.root / "ledger.sqlite"
        url = read_environment().ledger_url or str(path)
        if url == str(path) and not path.is_file():
            raise InputRejected(
                f"ledger: {path} does not exist, so no batch was ever made from here; expected the"
                " warehouse of a run with --mode batch; name it with --warehouse"
            )
        self._base_url = base_url
        self._prices = load_prices(Path(prices) if prices else None)
        self._close = ExitStack()
        self._ledger = self._close.enter_context(open_ledger(url))
        self._store = self._close.enter_context(open_batch_store(url))

    def __enter__(self) -> BatchDesk:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close.close()

    def list(self, *, is_open: bool = False) -> list[BatchView]:
        """All batches, oldest first; the endpoints are asked about the open ones.

        Args:
            is_open: Only those that may still bring replies.
        """
        views: list[BatchView] = []
        for name in self._store.endpoint_names():
            if name.startswith(SIMULATOR):
                found = self._store.submissions(name, is_open=is_open)
                views += [_view_of_simulated(one) for one in found]
                continue
            with self._buyer(name) as buyer:
                views += buyer.list_batches(is_open=is_open)
        return sorted(views, key=lambda view: view.planned_at)

    def collect(self) -> tuple[int, float]:
        """Stores what ended batches have brought, at every endpoint that has open ones.

        Returns:
            Replies, and their cost in US dollars as far as it is known.
        """
        n_replies, cost_usd = 0, 0.0
        for name in self._store.endpoint_names():
            is_open = bool(self._store.submissions(name, is_open=True))
            if name.startswith(SIMULATOR) or not is_open:
                continue
            with self._buyer(name) as buyer:
                tally = buyer.collect()
            n_replies, cost_usd = n_replies + tally.made, cost_usd + tally.cost_usd
        return n_replies, cost_usd

    def cancel(self, batch: str) -> str:
        """Cancels a batch at its endpoint, and returns the endpoint's status of it.

        Raises:
            BatchUnknown: The ledger remembers no such batch.
        """
        submission = self._find(batch)
        if submission.batch_id is None or submission.endpoint_name.startswith(SIMULATOR):
            raise InputRejected(
                f"batch {clean_line(batch, 80)}: it is not at any endpoint (the embedded simulator"
                " ends with its run); expected one that was sent; give it up with `pref batch"
                f" forget {submission.submission_id}`"
            )
        with self._buyer(submission.endpoint_name) as buyer:
            return buyer.cancel(batch)

    def forget(self, batch: str) -> int:
        """Gives up a batch, so that its calls may be bought again; returns how many they are.

        Raises:
            BatchUnknown: The ledger remembers no such batch.
        """
        submission = self._find(batch)
        with self._buyer(submission.endpoint_name) as buyer:
            return buyer.forget(submission.submission_id)

    def _find(self, batch: str) -> Submission:
        for name in self._store.endpoint_names():
            for one in self._store.submissions(name, is_open=False):
                if batch in (one.batch_id, one.submission_id):
                    return one
        raise BatchUnknown(
            f"Batch {clean_line(batch, 80)}: the ledger at hand remembers no such batch; expected"
            " one that `pref batch list` shows; check --warehouse"
        )

    @contextmanager
    def _buyer(self, endpoint_name: str) -> Iterator[BatchBuyer]:
        with BatchBuyer(
            lambda: endpoint_of_name(endpoint_name, self._base_url),
            self._ledger,
            self._store,
            BatchSettings(),
            self._prices,
        ) as buyer:
            yield buyer


def _view_of_simulated(one: Submission) -> BatchView:
    status = one.end_status or "gone with its run"
    return BatchView(
        one.batch_id,
        one.submission_id,
        one.model,
        status,
        one.n_lines,
        None,
        None,
        one.planned_at,
        one.state != "closed",
    )


def as_row(view: BatchView) -> dict[str, Any]:
    """A batch as one row of a table."""
    return {
        "batch": view.batch_id or view.submission_id,
        "model": view.model,
        "status": view.status,
        "calls": view.n_lines,
        "completed": view.n_completed,
        "failed": view.n_failed,
        "planned_at": view.planned_at.isoformat(timespec="seconds"),
        "is_open": view.is_open,
    }
