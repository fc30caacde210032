"""What a dataset version says about itself, strictly to and from JSON. It touches no disk."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from warehouse._json_reader import JsonReader
from warehouse.canonical import sha256_json
from warehouse.errors import WarehouseError

VERSION_DIGITS = 12
_VERSION = re.compile(r"[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SEAL = "manifest_sha256"


@dataclass(frozen=True)
class FileEntry:
    """One stored file of a dataset version."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class TemplateUse:
    """A prompt template the rows were made with."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class CallCounts:
    """Model calls behind a dataset.

    Attributes:
        made: Calls bought in the run that wrote the dataset.
        reused: Calls answered by the ledger in that run.
        prompt_tokens: Tokens sent, over all replies the dataset rests on.
        completion_tokens: Tokens received, over the same replies.
        cost_usd: Price of all replies the dataset rests on, whenever they were bought; None
            when a model's price is not known.
        spent_usd: Money spent in the run that wrote the dataset; None as above.
    """

    made: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    spent_usd: float | None = 0.0


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The part of a manifest that the writer of a dataset supplies.

    Attributes:
        stage: Stage that made the rows.
        code_sha256: Hash of the stage's code.
        config: The settings that can change the rows, as JSON.
        parents: Dataset -> version (12 hex digits) of everything the rows were made from.
        templates: Prompt templates used.
        models: Names of the models used.
        calls: Calls, tokens and money.
        code_commit: Git commit of the program, None outside a checkout.
        is_code_dirty: Whether the checkout had uncommitted changes.
        libraries: Library -> version.
        flow_run_id: Prefect flow run, or another name of the run.
        task_run_id: Prefect task run, None outside one.
        started_at: When the stage began, UTC.
    """

    stage: str
    code_sha256: str
    config: Mapping[str, Any]
    parents: Mapping[str, str]
    flow_run_id: str
    started_at: datetime
    templates: tuple[TemplateUse, ...] = ()
    models: tuple[str, ...] = ()
    calls: CallCounts = CallCounts()
    code_commit: str | None = None
    is_code_dirty: bool = False
    libraries: Mapping[str, str]
    task_run_id: str | None = None

    def name_version(self) -> str:
        """The dataset version these inputs name, 64 hex digits; see `dataset_version`."""
        return dataset_version(self.stage, self.code_sha256, self.config, self.parents)


@dataclass(frozen=True, kw_only=True)
class Manifest(Provenance):
    """Everything recorded about one dataset version; its file is the commit point.

    Attributes:
        dataset: Table name.
        version: First 12 hex digits of version_sha256, the name people use.
        version_sha256: Hash of stage, code, config and parents.
        schema_id: Hash of the columns, see `warehouse.tables.Table.schema_id`.
        content_sha256: Hash over the names, sizes and hashes of the files.
        files: The stored files, by name; the manifest itself is not among them.
        n_rows: Rows.
        n_bytes: Bytes of all files.
        finished_at: When the version was committed, UTC.
    """

    dataset: str
    version: str
    version_sha256: str
    schema_id: str
    content_sha256: str
    files: tuple[FileEntry, ...]
    n_rows: int
    n_bytes: int
    finished_at: datetime

    def to_json(self) -> bytes:
        """Spell the manifest as JSON, sealed with its own hash."""
        raw = asdict(self)
        raw["config"] = json.loads(json.dumps(dict(self.config)))
        raw["parents"] = dict(self.parents)
        raw["libraries"] = dict(self.libraries)
        for name in ("files", "templates", "models"):
            raw[name] = list(raw[name])
        for name in ("started_at", "finished_at"):
            raw[name] = utc_text(raw[name], name)
        raw[_SEAL] = sha256_json(raw)
        text = json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode("utf-8")

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Manifest":
        """Read a manifest back, refusing anything that `to_json` would not have written.

        Args:
            data: The bytes of the file.
            where: What to call it in an error: its path.

        Raises:
            DatasetCorrupt: Not JSON, a key missing or unknown, a value of the wrong type, or a
                hash that does not fit.
        """
        reader = JsonReader.parse(data, f"manifest {where}")
        reader.expect_keys({field.name for field in fields(cls)} | {_SEAL})
        seal = reader.text(_SEAL, _SHA256)
        found = sha256_json({key: item for key, item in reader.raw.items() if key != _SEAL})
        if found != seal:
            raise reader.fault(f"its content hashes to {found[:12]}", f"{seal[:12]}")
        manifest = cls(
            dataset=reader.text("dataset"),
            version=reader.text("version", _VERSION),
            version_sha256=reader.text("version_sha256", _SHA256),
            stage=reader.text("stage"),
            code_sha256=reader.text("code_sha256"),
            config=reader.mapping("config"),
            parents=reader.text_mapping("parents"),
            schema_id=reader.text("schema_id"),
            content_sha256=reader.text("content_sha256", _SHA256),
            files=reader.each("files", _file_entry),
            n_rows=reader.count("n_rows"),
            n_bytes=reader.count("n_bytes"),
            templates=reader.each("templates", _template_use),
            models=reader.texts("models"),
            calls=_call_counts(reader.inner("calls")),
            code_commit=reader.text_or_none("code_commit"),
            is_code_dirty=reader.flag("is_code_dirty"),
            libraries=reader.text_mapping("libraries"),
            flow_run_id=reader.text("flow_run_id"),
            task_run_id=reader.text_or_none("task_run_id"),
            started_at=reader.moment("started_at"),
            finished_at=reader.moment("finished_at"),
        )
        if manifest.version != manifest.version_sha256[:VERSION_DIGITS]:
            raise reader.fault(f"version {manifest.version}", manifest.version_sha256[:12])
        return manifest


def dataset_version(
    stage: str, code_sha256: str, config: Mapping[str, Any], parents: Mapping[str, str]
) -> str:
    """Name a dataset version by everything that can change its rows.

    Args:
        stage: Stage that makes the rows.
        code_sha256: Hash of the stage's code.
        config: Settings that can change the rows, as JSON.
        parents: Dataset -> version, 12 hex digits.

    Returns:
        64 hex digits; the first 12 are the version's short name.

    Raises:
        WarehouseError: The config is not JSON (see `warehouse.canonical.canonical_json`), or a
            parent's version is not 12 hex digits.
    """
    for dataset, version in parents.items():
        # A long and a short name of the same parent would give two names to the same child.
        if not _VERSION.fullmatch(version):
            raise WarehouseError(
                f"parent {dataset} of stage {stage}: version {version!r}, expected 12 hex "
                "digits; give Manifest.version"
            )
    return sha256_json(
        {
            "stage": stage,
            "code_sha256": code_sha256,
            "config": dict(config),
            "parents": dict(parents),
        }
    )


def content_hash(files: Sequence[FileEntry]) -> str:
    """Hash names, sizes and hashes of the files, in name order; 64 hex digits."""
    ordered = sorted((file.name, file.n_bytes, file.sha256) for file in files)
    return sha256_json(ordered)


def utc_text(moment: datetime, name: str) -> str:
    """Spell a time as ISO 8601 in UTC, ending in Z.

    Raises:
        WarehouseError: The time carries no zone.
    """
    if moment.tzinfo is None:
        raise WarehouseError(
            f"{name}: {moment.isoformat()} has no time zone, expected UTC; use datetime.now(UTC)"
        )
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _file_entry(reader: JsonReader) -> FileEntry:
    reader.expect_keys({"name", "n_bytes", "sha256"})
    return FileEntry(reader.text("name"), reader.count("n_bytes"), reader.text("sha256", _SHA256))


def _template_use(reader: JsonReader) -> TemplateUse:
    reader.expect_keys({"name", "version", "sha256"})
    return TemplateUse(reader.text("name"), reader.text("version"), reader.text("sha256"))


def _call_counts(reader: JsonReader) -> CallCounts:
    reader.expect_keys({field.name for field in fields(CallCounts)})
    return CallCounts(
        made=reader.count("made"),
        reused=reader.count("reused"),
        prompt_tokens=reader.count("prompt_tokens"),
        completion_tokens=reader.count("completion_tokens"),
        cost_usd=reader.amount_or_none("cost_usd"),
        spent_usd=reader.amount_or_none("spent_usd"),
    )
