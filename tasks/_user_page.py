"""One user's page as self-contained HTML. It reads no warehouse; texts of others are escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks._stages import figures
from tasks._stages.report import page_environment, page_source

if TYPE_CHECKING:
    from tasks.showing import User


def render_user(user: User) -> str:
    """The page of `tasks.showing.user_facts`: the same facts, the same bytes."""
    rows = [one._asdict() for one in user.weights]
    return (
        page_environment()
        .from_string(page_source("user_page.html"))
        .render(
            css=page_source("report_page.css"),
            user=user,
            weight_figure=figures.user_weights(rows).svg,
            has_labels=any(one.label for one in user.weights),
        )
    )
