"""Where exported rows come from in the end, and under which licences. It reads manifests only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from warehouse.lineage import lineage_tree
from warehouse.manifest import Manifest
from warehouse.runs import RunRecord
from warehouse.store import Warehouse

UNKNOWN = "unknown"
SIMULATOR = "simulator-"
# Licences by the names that Hugging Face's cards know, with their addresses.
ADDRESSES = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "bsd-3-clause": "https://opensource.org/license/bsd-3-clause",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "cc-by-nc-nd-4.0": "https://creativecommons.org/licenses/by-nc-nd/4.0/",
    "cc-by-nc-sa-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    "cc-by-sa-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "cc0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "mit": "https://opensource.org/license/mit",
    "odbl": "https://opendatacommons.org/licenses/odbl/1-0/",
    "odc-by": "https://opendatacommons.org/licenses/by/1-0/",
}
PRISM_CITATION = (
    "Kirk et al. 2024, The PRISM Alignment Dataset, arXiv:2404.16019, doi:10.57967/hf/2113"
)


class Source(NamedTuple):
    """Data that came in from outside.

    Attributes:
        name: What it is.
        licence: Lower-case name, or `UNKNOWN`.
        terms: Further conditions, in words.
        citation: How to cite it, None for no wish.
    """

    name: str
    licence: str
    terms: str
    citation: str | None


class Origin(NamedTuple):
    """What stands behind an export: sources, and the models that wrote or judged."""

    sources: tuple[Source, ...]
    models: tuple[str, ...]
    is_simulated: bool


def ancestry(warehouse: Warehouse, versions: Mapping[str, str]) -> list[Manifest]:
    """Manifests of some datasets and of everything they were made from, each once, oldest first.

    Raises:
        DatasetMissing: A version among them is gone, so that nobody can tell its licence.
    """
    found: dict[tuple[str, str], Manifest] = {}
    waiting = [lineage_tree(warehouse, name, version) for name, version in versions.items()]
    while waiting:
        node = waiting.pop()
        one = (node.manifest.dataset, node.manifest.version)
        if one not in found:
            found[one] = node.manifest
            waiting += node.parents
    return sorted(found.values(), key=lambda one: (one.finished_at, one.dataset, one.version))


def origin(ancestors: Sequence[Manifest], runs: Sequence[RunRecord], licence: str | None) -> Origin:
    """Sources, models and simulation behind some datasets.

    Args:
        ancestors: The datasets and all they were made from.
        runs: Recorded runs, oldest first; a licence stated in one is that of what it ingested.
        licence: A licence stated now, for sources of which none is known.
    """
    sources = dict.fromkeys(_sources(ancestors, runs, licence))
    models = sorted({model for one in ancestors for model in one.models})
    is_simulated = any(_endpoint(one).startswith(SIMULATOR) for one in ancestors)
    return Origin(tuple(sources), tuple(models), is_simulated)


def _sources(
    ancestors: Sequence[Manifest], runs: Sequence[RunRecord], licence: str | None
) -> Iterator[Source]:
    # Responses of PRISM's models are under a stricter licence than what people wrote.
    has_responses = any(one.dataset == "opening_responses" for one in ancestors)
    for one in ancestors:
        if one.parents:
            continue
        if one.stage == "prism":
            yield Source(
                "PRISM",
                "cc-by-nc-4.0" if has_responses else "cc-by-4.0",
                "Texts by people are CC BY 4.0; responses by models are CC BY-NC 4.0 and under"
                " their providers' terms. Nobody may try to find out who the participants are.",
                PRISM_CITATION,
            )
        elif one.stage == "ingest" and one.config.get("prompt_source") == "starter":
            yield Source("starter prompts of pref", "apache-2.0", "", None)
        elif one.stage in ("ingest", "ingest_own"):
            stated = _stated(one, runs) or licence
            files = one.config.get("files", {})
            name = one.config.get("prompt_source") or "own data (" + ", ".join(sorted(files)) + ")"
            terms = "" if stated else "Nobody stated a licence."
            yield Source(str(name), (stated or UNKNOWN).lower(), terms, None)


def _stated(manifest: Manifest, runs: Sequence[RunRecord]) -> str | None:
    """The licence that the newest run with this version states, if any did."""
    for run in reversed(runs):
        if run.datasets.get(manifest.dataset) != manifest.version:
            continue
        ingest = run.config.get("ingest")
        if isinstance(ingest, Mapping) and ingest.get("licence"):
            return str(ingest["licence"])
    return None


def _endpoint(manifest: Manifest) -> str:
    return str(manifest.config.get("endpoint_name", ""))


def overall_licence(found: Origin) -> str:
    """One name for all: the licence all sources share, `UNKNOWN`, or "other" for several."""
    names = {one.licence for one in found.sources}
    if not names or UNKNOWN in names:
        return UNKNOWN
    return names.pop() if len(names) == 1 else "other"


def licence_address(name: str) -> str:
    """The licence's address, or its name where it has none."""
    return ADDRESSES.get(name, name)


def judge_of(ancestors: Sequence[Manifest]) -> dict[str, Any] | None:
    """Model, template and sampling of the judge of a preference matrix; None without one."""
    for one in ancestors:
        if one.dataset == "judgments":
            return {
                "model": one.config.get("judge_model"),
                "endpoint": one.config.get("endpoint_name"),
                "templates": [f"{used.name} v{used.version}" for used in one.templates],
                "sampling": one.config.get("sampling"),
            }
    return None
