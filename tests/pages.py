"""What an accessibility check asks of a page that needs no browser to be answered."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.ids: set[str] = set()
        self.level = 0
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.seen: set[str] = set()
        self.names_head: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.seen.add(tag)
        one = found.get("id")
        if one:
            if one in self.ids:
                self.faults.append(f"id {one} is there twice")
            self.ids.add(one)
        if re.fullmatch(r"h[1-6]", tag):
            level = int(tag[1])
            if level > self.level + 1:
                self.faults.append(f"{tag} follows h{self.level}")
            self.level = level
        if tag == "html" and not found.get("lang"):
            self.faults.append("the page names no language")
        if tag == "svg" and not (found.get("role") == "img" and found.get("aria-label")):
            self.faults.append("a figure has no text beside it")
        if tag == "img" and not found.get("alt"):
            self.faults.append("an image has no text beside it")
        if tag == "th" and not found.get("scope"):
            self.faults.append("a header of a table says of what it is one")
        if tag == "table":
            self.names_head.append(False)
            if not any(o == "div" and a.get("aria-label") for o, a in self.open):
                self.faults.append("a table has no name")
        if tag == "th" and self.names_head:
            self.names_head[-1] = True
        if found.get("tabindex") not in (None, "0"):
            self.faults.append("the order of focus is changed")
        if tag not in VOID:
            self.open.append((tag, found))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and not self.names_head.pop():
            self.faults.append("a table has no header")
        while self.open and self.open.pop()[0] != tag:
            pass


def faults_of(html: str) -> list[str]:
    """What an automated check would find wrong with a page: headings, names, headers, contrast."""
    page = _Page()
    page.feed(html)
    faults = page.faults
    for tag in ("title", "main", "h1"):
        if tag not in page.seen:
            faults.append(f"the page has no {tag}")
    if 'name="viewport"' not in html:
        faults.append("the page is not fitted to a phone")
    style = html[html.index("<style>") : html.index("</style>")]
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", style))
    faults += [
        f"{name} on {ground} has too little contrast"
        for name in ("ink", "soft", "blue")
        for ground in ("paper", "wash")
        if contrast(colors[name], colors[ground]) < 4.5
    ]
    return faults


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colors, 1 to 21 (WCAG 2)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
