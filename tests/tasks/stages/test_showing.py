"""One user's page: what it says of a known world, and that hostile texts stay texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows._app import app
from pref_model.adapt import adapt_users, training_prior
from pref_model.checkpoint import load_model
from tasks._stages.adapt import STAGE as ADAPT_STAGE
from tasks._stages.fit import STAGE as FIT_STAGE
from tasks._stages.worlds import load_world
from tasks.errors import InputRejected
from tasks.reporting import write_report
from tasks.showing import N_ANSWERS_SHOWN, QUANTILE, render_user, user_facts
from tests.pages import faults_of
from tests.tasks.stages.conftest import Bench
from tests.tasks.stages.worlds import FIT, N_SEEN_PAIRS, put_world
from warehouse.errors import DatasetMissing

HOSTILE = "\x1b[31m<script>alert(1)</script> [bold]{{ 7 * 7 }}"
ADAPT = {
    "answers": [3, 5], "rule": "d_optimal", "prior": "training_users", "weights": "equal",
    "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("shown") / "warehouse")
    put_world(bench)
    texts = bench.rows("responses")
    bench.put("responses", [{**row, "response_text": HOSTILE} for row in texts], ("prompts",))
    bench.put("pairs", bench.rows("pairs"), ("prompts", "responses"))
    bench.run(FIT_STAGE, **FIT)
    bench.run(ADAPT_STAGE, **ADAPT)
    return bench


def test_a_new_user_s_intervals_are_those_of_the_posterior_it_was_adapted_to(shown: Bench) -> None:
    found = user_facts(shown.warehouse, "u035", 3)
    inputs = shown.inputs(ADAPT_STAGE, **ADAPT)
    world, model = load_world(inputs), load_model(inputs.folder("models"), "pref")
    features = model.pair_features(world.differences)
    prior = training_prior(features, world.part("train"), world.n_seen_users, 1.0)
    asked = [row for row in shown.rows("questions") if row["persona_id"] == "u035"][:3]
    phi = features[[world.pairs.index(row["pair_id"]) for row in asked]][None]
    labels = np.array([[row["answer_prob"] for row in asked]])
    own = adapt_users(phi, labels, np.ones((1, 3)), prior)
    half = QUANTILE * np.sqrt(np.diag(own.covariance[0]))
    np.testing.assert_allclose([one.weight for one in found.weights], own.mean[0], atol=1e-6)
    np.testing.assert_allclose([one.low for one in found.weights], own.mean[0] - half, atol=1e-6)
    assert [one.answer_prob for one in found.answers] == [
        max(row["answer_prob"], 1 - row["answer_prob"]) for row in asked
    ]


def test_more_answers_leave_less_uncertain(shown: Bench) -> None:
    three, five = (user_facts(shown.warehouse, "u035", count) for count in (3, 5))
    widths = [np.prod([one.high - one.low for one in found.weights]) for found in (three, five)]
    assert widths[1] < widths[0]
    assert user_facts(shown.warehouse, "u035") == five


def test_a_training_user_is_shown_by_the_answers_training_saw(shown: Bench) -> None:
    found = user_facts(shown.warehouse, "u000")
    assert found.is_seen
    assert found.n_answers == N_SEEN_PAIRS
    assert len(found.answers) == N_ANSWERS_SHOWN
    assert found.examples == []
    assert "held-out users" in found.notes[0]


def test_what_is_not_there_is_one_line(shown: Bench, bench: Bench) -> None:
    with pytest.raises(InputRejected, match=r"persona 'u999': not among the 40 .* u000"):
        user_facts(shown.warehouse, "u999")
    with pytest.raises(InputRejected, match="no weights after 4 answers; expected one of 3, 5"):
        user_facts(shown.warehouse, "u035", 4)
    with pytest.raises(DatasetMissing, match="none yet in warehouse"):
        user_facts(bench.warehouse, "u035")
    notes = user_facts(shown.warehouse, "u035").notes
    assert any("no personalized responses" in note for note in notes)
    assert any("no labels" in note for note in notes)


def test_a_report_that_is_not_there_is_one_line(shown: Bench, tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="dataset report: none yet in warehouse"):
        write_report(shown.warehouse, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_texts_can_neither_move_the_terminal_nor_become_markup(
    shown: Bench, tmp_path: Path
) -> None:
    page = tmp_path / "user.html"
    words = ["show", "u035", "--warehouse", str(shown.warehouse.root), "--html", str(page)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "\x1b[31m" not in done.output
    assert "[bold]" in done.output or "[bold" in done.output.replace("\n", "")
    html = page.read_text("utf-8")
    assert html == render_user(user_facts(shown.warehouse, "u035"))
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in html
    assert "src=" not in html
    assert faults_of(html) == []
