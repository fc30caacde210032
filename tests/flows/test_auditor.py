"""What an auditor is shown: in Prefect's UI, by a real browser, and by the commands of the page."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.browser import CHROMIUM, Browser
from tests.flows.conftest import ROOT, SMALL, Finished, Pref
from tests.flows.test_deploy import Api

pytestmark = pytest.mark.slow
# From a model down to what was asked, each the parent of the one before.
WAY = ("models", "preferences", "judgments", "pairs", "prompts")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def ran(prefect_server: str, home: Path) -> Finished:
    done = Pref(home, prefect_server).attributes(home / "data")
    assert done.code == 0, done.err
    return done


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with Browser(tmp_path / "profile") as opened:
        yield opened


def artifacts(url: str, key: str) -> list[dict[str, Any]]:
    wanted = {"key": {"any_": [key]}}
    found = Api(url).post("/artifacts/filter", artifacts=wanted, sort="CREATED_DESC")
    return list(found)


def title(ran: Finished, dataset: str) -> str:
    return f"{dataset} {ran.found['datasets'][dataset]}"


def open_model(browser: Browser, ran: Finished, server: str) -> None:
    """Goes to the model's card of this run as the UI's own list of its versions leads there."""
    site = server.removesuffix("/api")
    browser.go(site)
    browser.see("Dashboard")
    # Whoever has no preference gets the newer UI, the one that draws graphs.
    assert browser.ask("location.pathname").startswith("/v2/")
    card = next(one for one in artifacts(server, "models") if title(ran, "models") in one["data"])
    browser.go(f"{site}/v2/artifacts/key/models")
    browser.click(f"a[href*='{card['id']}']")
    browser.see_heading(title(ran, "models"))


def row_link(row: str, dataset: str) -> str:
    """The link to a dataset in a row of a card's table, as a JavaScript expression."""
    return (
        "[...document.querySelectorAll('tr')]"
        f".filter(one => one.cells[0]?.innerText.trim() === '{row}')"
        ".flatMap(one => [...one.querySelectorAll('a')])"
        f".find(one => one.innerText.trim().split(' ')[0] === '{dataset}')"
    )


def test_links_lead_from_a_model_to_its_prompts_and_back_one_click_a_hop(
    browser: Browser, ran: Finished, prefect_server: str
) -> None:
    open_model(browser, ran, prefect_server)
    for parent in WAY[1:]:
        browser.click_on(row_link("parents", parent))
        browser.see_heading(title(ran, parent))
    for child in reversed(WAY[:-1]):
        browser.click_on(row_link("read by", child))
        browser.see_heading(title(ran, child))
    assert browser.ask("location.pathname").startswith("/v2/")


def test_a_node_of_a_cards_graph_leads_to_that_datasets_card(
    browser: Browser, ran: Finished, prefect_server: str
) -> None:
    open_model(browser, ran, prefect_server)
    for dataset in ("judgments", "prompts"):
        browser.click(f"svg g.node[id*='-{dataset}-']")
        browser.see_heading(title(ran, dataset))


def test_the_graph_of_the_run_has_a_node_for_every_dataset_and_each_is_a_link(
    browser: Browser, ran: Finished, prefect_server: str
) -> None:
    card = artifacts(prefect_server, "lineage")[0]
    browser.go(f"{prefect_server.removesuffix('/api')}/v2/artifacts/artifact/{card['id']}")
    for dataset in ran.found["datasets"]:
        browser.see(dataset)
    browser.click("svg g.node[id*='-report-']")
    browser.see_heading(title(ran, "report"))


def test_a_card_tells_what_an_auditor_asks(ran: Finished, prefect_server: str) -> None:
    card = next(
        one["data"]
        for one in artifacts(prefect_server, "judgments")
        if title(ran, "judgments") in one["data"]
    )
    for row in (
        "rows", "parents", "read by", "stage code", "templates", "models", "calls", "tokens",
        "cost of all replies", "code commit", "checks passed", "finished",
    ):  # fmt: skip
        assert f"| {row} |" in card, row
    assert "**computed**" in card
    assert re.search(r"judge_attributes v\d+ `[0-9a-f]{12}`", card)
    assert "480 made" in card


def test_stages_of_calls_are_named_with_their_shards_and_have_a_progress_bar(
    ran: Finished, prefect_server: str
) -> None:
    names = {one["name"] for one in Api(prefect_server).post("/flow_runs/filter")}
    assert "judge: 12 shards" in names
    bar = artifacts(prefect_server, "judge-progress")[0]
    assert (bar["type"], bar["data"]) == ("progress", 100.0)


def told_commands() -> list[list[str]]:
    """The commands of the page's blocks, in their order."""
    text = (ROOT / "docs" / "audit.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("pref ")]


def test_every_command_of_the_audit_page_does_what_it_says(
    ran: Finished, home: Path, pref: Pref
) -> None:
    shutil.copytree(home / "data", Path(pref.env["HOME"]) / "pref-data")
    settings = [word for one in SMALL for word in ("--set", one)]
    said = {}
    for _, *words in told_commands():
        more = settings if words[:2] == ["run", "attributes"] else []
        done = pref.run(*words, *more)
        assert done.code == 0, (words, done.out, done.err)
        said.setdefault(words[0], []).append(done.out)
    assert "0 findings" in said["audit"][0]
    listed, removed, again = said["forget"]
    assert "nothing was changed" in listed
    assert "to be trained again: models" in removed
    assert "nothing is left" in again
    # And the same run goes on without the person, and buys nothing for anybody else.
    after = pref.attributes(Path(pref.env["HOME"]) / "pref-data")
    assert after.code == 0, after.err
    names = pref.run("sql", "select persona_id from personas", "--json").out
    assert "concise+engaging" not in names
    assert after.found["judge_audit"]["n_judgments"] == 20 * 12 * 2
    assert pref.run("audit").code == 0


def test_the_report_fits_a_phone_and_a_sheet_of_paper(
    browser: Browser, ran: Finished, home: Path
) -> None:
    [page] = (home / "data").glob("report/version=*/report.html")
    # 7.5 inches are what a browser leaves of a sheet.
    for media, width in (("screen", 390), ("print", 720)):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.tell("Emulation.setDeviceMetricsOverride", **metrics)
        browser.tell("Emulation.setEmulatedMedia", media=media)
        browser.go(page.as_uri())
        browser.see("Personalization via reward factorization")
        assert browser.ask("document.documentElement.scrollWidth") <= width, media
