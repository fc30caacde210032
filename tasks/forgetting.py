"""Removes a person from a warehouse, its ledger and the exports it knows of. Buys nothing.

Files outside are nobody's to change here: a team's own data, PRISM's files, copies of exports,
backups of a database, what a provider keeps of the calls it answered.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

from prompts.neutral import neutralize
from tasks._engines import close_engines
from tasks.auditing import ledger_url
from tasks.errors import InputRejected
from warehouse.errors import DatasetMissing
from warehouse.exports import ExportRecord, exports, remove_export, unrecord_export
from warehouse.forget import LONG, Affected, Person, affected, find_person
from warehouse.forgotten import Tombstone, joined, new_mark, tombstone_of, write_tombstone
from warehouse.store import Warehouse, utc_now

# What training makes, and so has to be made again by training.
TRAINED = ("backbones", "models", "base_rewards", "user_weights", "adapted_weights")
_MARKER = "VERDICT"
_IMPORT = "ingest"


class Removal(NamedTuple):
    """What holds a person, and whether it has been removed.

    Attributes:
        is_done: Whether it was removed; false for a list of what would be.
        versions: Dataset versions, parents before children, with the reason for each.
        current: "dataset version" of those that readers got by default.
        request_keys: Calls in the ledger, or waiting for a batch.
        cost_usd: What these calls had cost; None where a price is not known.
        unfinished: Staging folders, as stage/version: all there are, for they may hold anybody.
        exports: Folders of exports that hold some of the versions.
        left: Files of exports that were changed since, and are left alone.
        flows: Flows whose runs made or used the versions: run them again.
        forgotten_before: When the person was forgotten before, ISO 8601; None if never.
    """

    is_done: bool
    versions: list[Affected]
    current: list[str]
    request_keys: list[str]
    cost_usd: float | None
    unfinished: list[str]
    exports: list[ExportRecord]
    left: list[str]
    flows: list[str]
    forgotten_before: str | None

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON; the versions in the order in which they can be made again."""
        return {
            **self._asdict(),
            "versions": [
                {
                    "dataset": one.manifest.dataset,
                    "version": one.manifest.version,
                    "stage": one.manifest.stage,
                    "n_rows": one.manifest.n_rows,
                    "why": one.why,
                }
                for one in self.versions
            ],
            "exports": [one.folder for one in self.exports],
            "retrain": self.retrain,
        }

    def told(self) -> list[str]:
        """What a person should read beside the table of versions, line by line."""
        verb = "removed" if self.is_done else "would be removed"
        cost = "unknown" if self.cost_usd is None else f"{self.cost_usd:.4f}"
        lines = [
            f"{verb}: {len(self.versions):,} dataset versions,"
            f" {len(self.request_keys):,} calls of the ledger (US$ {cost}; --json lists them),"
            f" {len(self.unfinished):,} unfinished stages, {len(self.exports):,} exports"
        ]
        lines += [f"export: {one.folder}" for one in self.exports]
        lines += [f"changed since it was exported, remove it yourself: {one}" for one in self.left]
        if self.retrain:
            lines.append(f"to be trained again: {', '.join(self.retrain)}")
        if self.flows:
            again = ", ".join(f"pref run {one}" for one in self.flows)
            lines.append(f"run again, without the person: {again}")
        if any(one.manifest.dataset == "answers" for one in self.versions):
            lines.append("import your own data again first: pref ingest FOLDER")
        lines.append(
            "yours to change: the files the data came from, copies of exports, backups, what"
            " providers keep of calls"
        )
        if not self.is_done:
            lines.append("nothing was changed; pass --yes to remove it")
        return lines

    @property
    def retrain(self) -> list[str]:
        """Everything trained that goes, as "dataset version": it has to be trained again."""
        return [
            f"{one.manifest.dataset} {one.manifest.version}"
            for one in self.versions
            if one.manifest.dataset in TRAINED
        ]


def forget(warehouse: Warehouse, person_id: str, *, is_real: bool) -> Removal:
    """Lists everything that holds a person, and removes it if that is asked for.

    Safe to repeat: a removal that was cut off is finished by the same command, because the
    datasets that know the person's texts go last.

    Args:
        warehouse: Where.
        person_id: Whom.
        is_real: Remove; false: only list.

    Raises:
        DatasetMissing: Nothing here is of that person, and nothing ever was.
        InputRejected: A batch that is under way holds calls about the person.
        WarehouseBusy: A run is at work there.
    """
    with warehouse.lock() if is_real else nullcontext():
        before = tombstone_of(warehouse, person_id)
        person = find_person(warehouse, person_id)
        if not person.kinds and before is None:
            raise DatasetMissing(
                f"persona {person_id!r}: no dataset of warehouse {warehouse.root} names it,"
                " expected one of the persona_id in `personas`; look with `pref sql`"
            )
        found = _find(warehouse, person, before)
        if not is_real or (before is not None and before.finished_at and not found.versions):
            return found
        return _remove(warehouse, person, found, before)


def _find(warehouse: Warehouse, person: Person, before: Tombstone | None) -> Removal:
    keys, cost_usd = _calls(warehouse, person)
    versions = affected(warehouse, person, keys)
    gone = {(one.manifest.dataset, one.manifest.version) for one in versions}
    current = warehouse.current()
    return Removal(
        is_done=False,
        versions=versions,
        current=[f"{name} {current[name]}" for name in current if (name, current[name]) in gone],
        request_keys=sorted(keys),
        cost_usd=cost_usd,
        unfinished=["/".join(one) for one in warehouse.unfinished()],
        exports=[one for one in exports(warehouse) if gone & set(one.datasets.items())],
        left=[],
        flows=sorted(
            {
                run.flow
                for run in warehouse.runs()
                if run.flow != _IMPORT and gone & set(run.datasets.items())
            }
        ),
        forgotten_before=before.began_at.isoformat() if before else None,
    )


def _remove(
    warehouse: Warehouse, person: Person, found: Removal, before: Tombstone | None
) -> Removal:
    record = Tombstone(
        name=secrets.token_hex(8),
        mark=new_mark(person.person_id),
        kinds=person.kinds,
        began_at=utc_now(),
        finished_at=None,
        versions={
            f"{one.manifest.dataset} {one.manifest.version}": one.manifest.content_sha256
            for one in found.versions
        },
        n_calls=len(found.request_keys),
        cost_usd=found.cost_usd,
        n_exports=len(found.exports),
    )
    if before is not None:
        record = joined(before, record)
    # On record before anything goes, so that whatever cuts us off can be told from a loss.
    write_tombstone(warehouse, record)
    _forget_calls(warehouse, found.request_keys)
    for one in found.unfinished:
        warehouse.clear_staging(*one.split("/", 1))
    left = []
    for export in found.exports:
        left += remove_export(export)
        unrecord_export(warehouse, export)
    for affected_version in reversed(found.versions):
        warehouse.remove(affected_version.manifest)
    write_tombstone(warehouse, replace(record, finished_at=utc_now()))
    return found._replace(is_done=True, left=left)


class _Needles:
    """A person's texts as they stand in requests and replies."""

    def __init__(self, person: Person) -> None:
        words = {form for text in person.words for form in _forms(text)}
        derived = {form for text in person.derived for form in _forms(text)}
        self._long = [_escaped(one) for one in sorted(words | derived) if len(one) >= LONG]
        short = [re.escape(_escaped(one)) for one in sorted(words) if len(one) < LONG]
        # Alone on its lines, or alone in a message.
        edge = rb'(?:\\n|")'
        self._short = re.compile(edge + b"(?:" + b"|".join(short) + b")" + edge) if short else None

    def are_in_request(self, request: bytes) -> bool:
        """Whether a request, which is ASCII JSON, holds one of the texts."""
        if any(one in request for one in self._long):
            return True
        return self._short is not None and self._short.search(request) is not None

    def are_in_reply(self, body: bytes) -> bool:
        """Whether a raw reply holds one of the long texts; servers escape as they like."""
        try:
            body = json.dumps(json.loads(body)).encode()
        except ValueError:
            body = json.dumps(body.decode("utf-8", "replace")).encode()
        return any(one in body for one in self._long)


def _forms(text: str) -> Iterator[str]:
    yield text
    yield neutralize(text).strip()
    yield neutralize(text, marker=_MARKER).strip()


def _escaped(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


def _calls(warehouse: Warehouse, person: Person) -> tuple[set[str], float | None]:
    """Keys of all calls about a person, waiting ones included, and what they had cost."""
    url = ledger_url(warehouse)
    if url is None:
        return set(), 0.0
    from tasks._llm.batch_store import open_batch_store
    from warehouse.ledger import open_ledger

    needles = _Needles(person)
    keys: set[str] = set()
    cost_usd: float | None = 0.0
    with open_ledger(url) as ledger:
        for call in ledger.iter_calls():
            key = call.reply.request_key
            if (
                key in person.request_keys
                or needles.are_in_request(call.request)
                or needles.are_in_reply(call.reply.body)
            ):
                keys.add(key)
                cost = call.reply.cost_usd
                cost_usd = None if cost is None or cost_usd is None else cost_usd + cost
    with closing(open_batch_store(url)) as store:
        for key, request, submission in store.requests():
            if not needles.are_in_request(request):
                continue
            if submission is not None:
                raise InputRejected(
                    f"persona {person.person_id!r}: a batch under way ({submission}) holds calls"
                    " about the person; expected none; end it with `pref batch collect`, or with"
                    " `pref batch cancel` and then `pref batch collect`, and try again"
                )
            keys.add(key)
    return keys, cost_usd


def _forget_calls(warehouse: Warehouse, keys: list[str]) -> None:
    url = ledger_url(warehouse)
    if url is None:
        return
    from tasks._llm.batch_store import open_batch_store
    from warehouse.ledger import open_ledger

    # Connections of this process would keep the database from being written anew.
    close_engines()
    with closing(open_batch_store(url)) as store:
        store.forget_pending(keys)
    with open_ledger(url) as ledger:
        ledger.forget(keys, beside=("batch_lines",))
