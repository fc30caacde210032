from __future__ import annotations

import re
from importlib.resources import files

import pytest

from pref_model.model import FitConfig
from prompts.catalog import load_template
from tasks._llm.prices import load_prices
from tasks._stages import figures, paper_figures, published
from tasks._stages.configs import stage_configs
from tasks._stages.estimates import attributes_extent, expected, priced, prompt_tokens
from tasks._stages.report import describe_page, page_environment
from tasks.config import AttributesConfig, PrismConfig, PrismIngestConfig, WinConfig
from tasks.errors import InputRejected
from tests.pages import contrast, faults_of

PAGE = (files("tasks._stages") / "report_page.html").read_text("utf-8")
REPLACED = "\ufffd"
WINS = [
    {"method": method, "win_rate_mean": 0.6, "win_rate_low": 0.5, "win_rate_high": 0.7}
    for method in figures.LOOK
]


def test_only_our_own_style_and_figures_enter_the_page_unescaped() -> None:
    assert set(re.findall(r"\{\{ (\w+)\|safe \}\}", PAGE)) == {
        "css",
        "auc_figure",
        "win_figure",
        "win_curve",
        "rank_figure",
        "figure",
    }
    assert PAGE.count("|safe") == 6
    assert "{% set figure = one.drawn.svg %}" in PAGE


def test_text_of_a_model_cannot_become_markup() -> None:
    hostile = "<script>alert(1)</script> {{ 7 * 7 }} & \" '"
    html = page_environment().from_string("<p>{{ text }}</p>").render(text=hostile)
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in html


def test_controls_of_a_model_reach_no_page_and_scripts_and_emoji_do() -> None:
    kept = "line\nnext\t– ہے می‌خواهم 👩‍🔬"
    hostile = "".join(map(chr, [0, 7, 8, 27, 127, 0x9B, 0x202E, 0x2066, 0x2069]))
    page = page_environment().from_string("{{ kept }}{{ '|' }}{{ hostile }}{{ 7 }}")
    assert page.render(kept=kept, hostile=hostile) == f"{kept}|{len(hostile) * REPLACED}7"


def test_the_same_rows_give_the_same_figure_bytes() -> None:
    first, second = figures.win_rates(WINS), figures.win_rates(WINS)
    assert first == second
    assert first.svg.startswith("<svg")
    assert first.png.startswith(b"\x89PNG")
    assert 'role="img"' in first.svg


def test_the_check_of_pages_finds_what_is_wrong_with_one() -> None:
    bad = (
        "<html><head><style>:root { --ink: #777777; --soft: #57606a; --blue: #0072b2;"
        " --paper: #ffffff; --wash: #f6f8fa; }</style></head><body><h1>A</h1><h3 id='x'>B</h3>"
        "<svg id='x'></svg><table><tr><td>1</td></tr></table></body></html>"
    )
    faults = " ".join(faults_of(bad))
    for word in (
        "no language", "h3 follows h1", "id x is there twice", "a figure has no text",
        "a table has no name", "a table has no header", "no title", "no main", "phone",
        "ink on paper",
    ):  # fmt: skip
        assert word in faults
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


def test_figures_of_the_paper_repeat_their_bytes_and_take_any_words() -> None:
    hostile = "<script>alert(1)</script> $x_{ \x1b[31m"
    rows = [(hostile, paper_figures.Point(1, 0.5, 0.4, 0.6)), ("b", paper_figures.Point(2, 0.7))]
    first, second = (
        paper_figures.bars(rows, title="Bars", across="AUC", published={"b": 0.8}) for _ in range(2)
    )
    assert first == second
    assert "<script" not in first.svg
    assert "\x1b" not in first.svg
    lines = [
        paper_figures.Curve("ours", [paper_figures.Point(1, 0.6, 0.5, 0.7)]),
        paper_figures.Curve("theirs", [paper_figures.Point(1, 0.7)], 1, is_published=True),
    ]
    drawn = paper_figures.curves(lines, title="Curves", across="answers", up="AUC")
    assert "theirs (published)" in drawn.svg
    ids = re.findall(r' id="([^"]+)"', first.svg + drawn.svg)
    assert len(set(ids)) == len(ids)


def test_published_values_are_those_that_the_paper_shows() -> None:
    assert published.curve("attributes", "pref")[40] == 0.879
    assert set(published.curve("attributes", "per_user")) == {5, 10, 15, 20, 30, 40}
    assert published.curve("prism", "per_user") == {}
    assert published.win_curve("prism", "system_prompt")[10] == pytest.approx(0.619)
    assert published.win_curve("own", "pref") == {}


def test_an_edit_of_the_page_changes_the_report_s_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe_page()
    monkeypatch.setattr("tasks._stages.report.page_source", lambda name: f"edited {name}")
    assert describe_page() != before


def test_the_checks_of_the_judge_are_told_what_a_fit_takes_and_nothing_else() -> None:
    config = AttributesConfig.model_validate({"fit": {"d": 3, "align_to": "previous"}})
    settings = stage_configs(config)["judge_checks"]["fit"]
    assert FitConfig(**{**settings, "head_l2": tuple(settings["head_l2"])}).d == 3


def test_the_paper_s_attributes_need_16_800_verdicts() -> None:
    config = AttributesConfig()
    configs = stage_configs(config)
    prices = load_prices(None)
    costs = {
        stage: expected(stage, configs[stage], config, attributes_extent(config), prices)
        for stage in ("respond", "judge", "pool", "win", "check_win")
    }
    assert costs["judge"].calls == 84 * 100 * 2
    assert costs["respond"].calls == 200
    assert costs["pool"].calls == 20 * 17
    # Three methods after 10 answers; PReF and the model per user also after 5 and 20.
    assert costs["win"].calls == 17 * 20 * (3 + 2 * 2) * 2
    assert costs["check_win"].calls == 100 * 2
    assert all(cost.cost_low_usd == 0.0 for cost in costs.values())


def test_further_ways_to_personalize_are_planned_and_leave_the_rest_as_it_was() -> None:
    also = ("samples", "in_context", "summary")
    ways = (AttributesConfig(), AttributesConfig(win=WinConfig(also=also, n_samples=8)))
    before, after = (stage_configs(one) for one in ways)
    plain, more = (
        {
            stage: expected(stage, found[stage], one, attributes_extent(one), load_prices(None))
            for stage in ("pool", "summarize", "write", "win")
        }
        for one, found in zip(ways, (before, after), strict=True)
    )
    assert [plain[stage].calls for stage in ("summarize", "write")] == [0, 0]
    assert more["pool"].calls == 20 * (17 + 8)
    assert more["summarize"].calls == 17
    assert more["write"].calls == 2 * 17 * 20
    assert plain["win"].calls == 17 * 20 * 7 * 2
    assert more["win"].calls == 17 * 20 * (7 + 3 + 2) * 2
    # What was planned stands in the report; nothing else of the chain is made anew by them.
    changed = {name for name, one in after.items() if one != before[name]}
    assert changed == {"pool", "summarize", "write", "report"}


def test_attributes_users_wrote_no_system_prompt() -> None:
    with pytest.raises(InputRejected, match="system_prompt asked for"):
        stage_configs(AttributesConfig(win=WinConfig(also=("system_prompt",))))
    assert stage_configs(
        PrismConfig(
            win=WinConfig(also=("system_prompt",)),
            ingest=PrismIngestConfig(fill_personas=9, fill_openings=9),
        )
    )["write"]["also"] == ["system_prompt"]


def test_the_judges_factors_are_fitted_with_settings_that_a_fit_takes() -> None:
    config = AttributesConfig()
    fit = stage_configs(config)["judge_checks"]["fit"]
    assert FitConfig(**{**fit, "head_l2": tuple(fit["head_l2"])}).d == config.fit.d


def test_money_is_tokens_times_list_price() -> None:
    prices = load_prices(None)
    config = {"judge_model": "gpt-4o", "sampling": {"max_tokens": 32}}
    cost = priced("judge", config, prices, [1000] * 1000)
    price = prices.lookup("gpt-4o")
    assert price is not None
    assert cost.cost_low_usd == pytest.approx(price.prompt + 6 * price.completion / 1000)
    assert cost.cost_high_usd == pytest.approx(price.prompt + 32 * price.completion / 1000)


def test_a_model_without_a_price_has_no_cost_rather_than_none_at_all() -> None:
    config = {"judge_model": "nobody-knows", "sampling": {}}
    assert priced("judge", config, load_prices(None), [10]).cost_low_usd is None


def test_token_estimates_grow_with_the_text() -> None:
    template = load_template("respond_base")
    short = prompt_tokens(template.render(prompt="Hi."))
    long = prompt_tokens(template.render(prompt="word " * 400))
    assert long - short == pytest.approx(500, abs=5)
