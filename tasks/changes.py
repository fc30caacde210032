"""What a run would make anew, and why: each stage against the version of it that there is.

It makes no call and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prompts.catalog import load_template
from tasks._stages.calls import CallStage
from tasks._stages.stage import Inputs, Stage
from tasks.types import StagePlan
from warehouse.diff import Cause, input_changes, template_changes, template_texts
from warehouse.store import Warehouse

N_EXAMPLES = 3


class StageChange(NamedTuple):
    """One stage against its current version.

    Attributes:
        stage: Name of the stage.
        dataset: The first dataset it writes.
        current: Its current version; None if there is none.
        planned: The version that a run would make or find.
        is_made: Whether that version is there already.
        causes: What differs between the two: (name, as it is, as it would be).
        templates: A unified diff of the templates' texts.
        n_cells: Cells with a call still to be made, where that is known.
        cells: A few of them.
    """

    stage: str
    dataset: str
    current: str | None
    planned: str
    is_made: bool
    causes: list[Cause]
    templates: list[str]
    n_cells: int | None
    cells: list[str]

    @property
    def is_same(self) -> bool:
        """Whether the current version is the planned one."""
        return self.current == self.planned


def change_of(
    stage: Stage | CallStage,
    plan: StagePlan,
    warehouse: Warehouse,
    current: str | None,
    *,
    is_made: bool,
    missing: tuple[int, Sequence[str]] | None,
) -> StageChange:
    """Compares a stage's plan with the version of it that a reader sees today.

    Args:
        stage: The stage.
        plan: Its plan.
        warehouse: Where versions are.
        current: The current version of its first dataset.
        is_made: Whether the planned version is committed.
        missing: How many cells lack a reply, and a few of them by name; None if not known.
    """
    causes: list[Cause] = []
    templates: list[str] = []
    if current is not None and current != plan.version:
        manifest = warehouse.manifest(stage.writes[0], current)
        causes = input_changes(manifest, plan.code_sha256, plan.config, plan.parents)
        if isinstance(stage, CallStage):
            before = template_texts(warehouse, manifest)
            after = {
                one: load_template(one).as_text()
                for one in stage.templates(Inputs(warehouse, plan))
            }
            # Without the older text there is nothing to compare with.
            templates = template_changes(before, after) if before else []
    n_cells, cells = (None, []) if missing is None else (missing[0], list(missing[1][:N_EXAMPLES]))
    return StageChange(
        stage.name,
        stage.writes[0],
        current,
        plan.version,
        is_made,
        causes,
        templates,
        n_cells,
        cells,
    )
