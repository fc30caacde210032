"""Runs and datasets as OpenLineage events, for a team's own catalog. Off unless it is switched on.

PREF_OPENLINEAGE names a file, to which events are appended one a line, or the http(s) address of a
lineage backend. Nothing is sent anywhere else. An event holds names, versions, columns, counts and
hashes; no row, no prompt, no setting and no secret. A backend that fails is told of once and then
left alone: lineage for others never stops a run.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import InputRejected
from warehouse.fields import FIELDS
from warehouse.manifest import Manifest, utc_text
from warehouse.tables import TABLES

_SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = {
    "parent": ("1-0-1", "ParentRunFacet"),
    "errorMessage": ("1-0-1", "ErrorMessageRunFacet"),
    "version": ("1-0-1", "DatasetVersionDatasetFacet"),
    "schema": ("1-1-1", "SchemaDatasetFacet"),
    "outputStatistics": ("1-0-2", "OutputStatisticsOutputDatasetFacet"),
}
# Names the program that says it; a URI by the specification, not an address to fetch.
_PRODUCER = "urn:pref-pipeline"
_NAMESPACE = "pref"
# Where Marquez and others listen, if the address names no path.
_PATH = "/api/v1/lineage"
_TIMEOUT_S = 5.0


class LineageSender:
    """Tells one run's story, event by event.

    Args:
        target: The file or address.
        root: The warehouse, which is the place of its datasets.
        flow: Name of the flow.
        run_id: The flow run's id.

    Raises:
        InputRejected: The target is neither.
    """

    def __init__(self, target: str, root: Path, flow: str, run_id: str) -> None:
        self._target = checked(target)
        self._root = root
        self._flow = flow
        self._run_id = _uuid(run_id)
        self.fault: str | None = None

    def began(self) -> None:
        """The flow run begins."""
        self._send(self._event("START", _now(), self._flow, self._run_id, {}))

    def made(self, manifests: Sequence[Manifest]) -> None:
        """A stage has made these datasets, all of one version."""
        first = manifests[0]
        job = {"namespace": _NAMESPACE, "name": self._flow}
        parent = _facet("parent", run={"runId": self._run_id}, job=job)
        # The task run that made them; a stage that was made before and found sends nothing.
        run_id = _uuid(first.task_run_id or f"{first.stage} {first.version_sha256}")
        name = f"{self._flow}.{first.stage}"
        inputs = [self._dataset(*one) for one in sorted(first.parents.items())]
        start = utc_text(first.started_at, "started_at")
        end = utc_text(max(one.finished_at for one in manifests), "finished_at")
        facets = {"parent": parent}
        self._send(self._event("START", start, name, run_id, facets, inputs))
        outputs = [self._output(one) for one in manifests]
        self._send(self._event("COMPLETE", end, name, run_id, facets, inputs, outputs))

    def ended(self, error: BaseException | None) -> None:
        """The flow run ends."""
        facets = {}
        if error is not None:
            # The kind alone: an error's text may quote data.
            said = type(error).__name__
            facets["errorMessage"] = _facet(
                "errorMessage", message=said, programmingLanguage="python"
            )
        kind = "COMPLETE" if error is None else "FAIL"
        self._send(self._event(kind, _now(), self._flow, self._run_id, facets))

    def _event(
        self,
        kind: str,
        time: str,
        job: str,
        run_id: str,
        facets: dict[str, Any],
        inputs: Sequence[dict[str, Any]] = (),
        outputs: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        return {
            "eventType": kind,
            "eventTime": time,
            "producer": _PRODUCER,
            "schemaURL": _SPEC,
            "run": {"runId": run_id, "facets": facets},
            "job": {"namespace": _NAMESPACE, "name": job, "facets": {}},
            "inputs": list(inputs),
            "outputs": list(outputs),
        }

    def _dataset(self, dataset: str, version: str) -> dict[str, Any]:
        return {
            "namespace": "file",
            "name": str(self._root / dataset),
            "facets": {"version": _facet("version", datasetVersion=version)},
        }

    def _output(self, manifest: Manifest) -> dict[str, Any]:
        columns = [
            {
                "name": name,
                "type": str(FIELDS[name].type),
                "description": FIELDS[name].description,
            }
            for name in TABLES[manifest.dataset].columns
        ]
        found = self._dataset(manifest.dataset, manifest.version)
        found["facets"]["schema"] = _facet("schema", fields=columns)
        found["outputFacets"] = {
            "outputStatistics": _facet(
                "outputStatistics",
                rowCount=manifest.n_rows,
                size=manifest.n_bytes,
                fileCount=len(manifest.files),
            )
        }
        return found

    def _send(self, event: dict[str, Any]) -> None:
        if self.fault is not None:
            return
        text = json.dumps(event)
        try:
            if "://" in self._target:
                _post(self._target, text.encode())
            else:
                with Path(self._target).open("a", encoding="utf-8") as file:
                    file.write(text + "\n")
        except (OSError, urllib.error.URLError) as error:
            self.fault = (
                f"OpenLineage events: {self._target} took none ({type(error).__name__}), expected a"
                " file that can be written or a backend that answers; no more are sent in this run"
            )


def checked(target: str) -> str:
    """A target as it is used: an address with its path, or a file's path.

    Raises:
        InputRejected: It is neither.
    """
    if "://" not in target:
        if Path(target).is_dir() or not Path(target).absolute().parent.is_dir():
            raise InputRejected(
                f"PREF_OPENLINEAGE: {target} cannot be a file, expected one in a folder that is"
                " there, or an http(s) address; change or unset it"
            )
        return target
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InputRejected(
            "PREF_OPENLINEAGE: found another address than http(s)://HOST without user and password,"
            " expected that or the path of a file; change or unset it"
        )
    return target if parts.path not in ("", "/") else target.rstrip("/") + _PATH


def _post(url: str, data: bytes) -> None:
    request = urllib.request.Request(
        url, data=data, headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
        reply.read()


def _facet(name: str, **values: Any) -> dict[str, Any]:
    version, schema = _FACETS[name]
    url = f"https://openlineage.io/spec/facets/{version}/{schema}.json#/$defs/{schema}"
    return {"_producer": _PRODUCER, "_schemaURL": url, **values}


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def _now() -> str:
    return utc_text(datetime.now(UTC), "now")
