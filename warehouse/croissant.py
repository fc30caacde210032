"""Exported datasets described in Croissant 1.0, the JSON-LD format of ML data. It writes no file.

Everything is read off the tables and fields; nothing is said here that they do not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from warehouse.fields import FIELDS, Field
from warehouse.manifest import FileEntry, Manifest
from warehouse.tables import TABLES, Table

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
# The context that the format's specification prescribes, term by term.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass(frozen=True)
class Described:
    """What is said of an export as a whole.

    Attributes:
        name: Name of the data set.
        summary: What it is, in a sentence or two.
        licence: A licence's address, or its name where it has none.
        citation: How to cite its sources; None for no wish.
        version: Three numbers with dots.
        is_synthetic: Whether models wrote texts or gave answers.
    """

    name: str
    summary: str
    licence: str
    citation: str | None
    version: str
    is_synthetic: bool


@dataclass(frozen=True)
class Exported:
    """One dataset version and the file that holds its rows in the export."""

    manifest: Manifest
    path: str
    file: FileEntry


def croissant(described: Described, exported: Sequence[Exported]) -> dict[str, Any]:
    """The JSON-LD document: a file object and a record set for each dataset.

    Args:
        described: What is said of the whole.
        exported: The datasets.
    """
    names = {one.manifest.dataset for one in exported}
    date = max(one.manifest.finished_at for one in exported).date().isoformat()
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": described.name,
        "description": described.summary,
        "license": described.licence,
        "version": described.version,
        "datePublished": date,
        "citeAs": described.citation or f"{described.name}, {date}",
        "isLiveDataset": False,
        "rai:dataCollection": (
            "Texts or answers, or both, come from language models (synthetic data)."
            if described.is_synthetic
            else "Answers are people's; texts are as they were handed in."
        ),
        "distribution": [_file_object(one) for one in exported],
        "recordSet": [_record_set(one, names) for one in exported],
    }


def _file_object(one: Exported) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"{one.manifest.dataset}-file",
        "name": f"{one.manifest.dataset}-file",
        "description": f"Version {one.manifest.version} of {one.manifest.dataset} as Parquet.",
        "contentUrl": one.path,
        "contentSize": f"{one.file.n_bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": one.file.sha256,
    }


def _record_set(one: Exported, names: set[str]) -> dict[str, Any]:
    table = TABLES[one.manifest.dataset]
    keys = [{"@id": f"{table.name}/{column}"} for column in table.key]
    return {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": f"{table.grain} {table.absent}",
        "key": keys[0] if len(keys) == 1 else keys,
        "field": [_field(table, FIELDS[column], names) for column in table.columns],
    }


def _field(table: Table, declared: Field, names: set[str]) -> dict[str, Any]:
    unit = f" Unit: {declared.unit}." if declared.unit else ""
    is_list = pa.types.is_list(declared.type)
    found: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{table.name}/{declared.name}",
        "name": f"{table.name}/{declared.name}",
        "description": f"{declared.description}{unit}",
        "dataType": data_type(declared.type.value_type if is_list else declared.type),
        "source": {
            "fileObject": {"@id": f"{table.name}-file"},
            "extract": {"column": declared.name},
        },
    }
    if is_list:
        found["repeated"] = True
    targets = [
        target
        for target in table.foreign.get(declared.name, ())
        if target.partition(".")[0] in names
    ]
    # Where several tables may hold the value there is no one column to point at; and readers of
    # the format join along references, which must not lead back to where they start.
    if len(targets) == 1 and not targets[0].startswith(f"{table.name}."):
        found["references"] = {"field": {"@id": targets[0].replace(".", "/")}}
    return found


def data_type(kind: pa.DataType) -> str:
    """Croissant's name of an Arrow type.

    Raises:
        TypeError: A type that no field has had so far.
    """
    for is_kind, name in (
        (pa.types.is_string, "sc:Text"),
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_timestamp, "sc:DateTime"),
    ):
        if is_kind(kind):
            return name
    raise TypeError(f"{kind} has no Croissant type")
