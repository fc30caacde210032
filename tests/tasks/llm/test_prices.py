from pathlib import Path

import pytest

from tasks._llm.errors import PriceTableInvalid
from tasks._llm.prices import Price, load_prices


def test_built_in_table_is_dated_and_prices_what_it_says() -> None:
    table = load_prices()
    gpt = table.lookup("gpt-4o")
    assert table.as_of == "2026-11"
    assert gpt is not None
    # A PRISM-size judging: 271 M tokens in, and the same in batch mode.
    assert gpt.cost_usd(271_000_000, 0) == pytest.approx(677.5)
    assert gpt.cost_usd(271_000_000, 0, is_batch=True) == pytest.approx(338.75)


def test_cached_tokens_are_billed_at_their_own_price() -> None:
    price = Price(prompt=2.0, cached_prompt=1.0, completion=10.0, batch_factor=0.5)
    assert price.cost_usd(1_000_000, 100_000, 400_000) == pytest.approx(1.2 + 0.4 + 1.0)


def test_missing_counts_give_no_cost_except_where_nothing_costs() -> None:
    paid, free = Price(1.0, 1.0, 1.0, 1.0), Price(0.0, 0.0, 0.0, 1.0)
    assert paid.cost_usd(None, 5) is None
    assert paid.cost_usd(5, None) is None
    assert free.cost_usd(None, None) == 0.0


def test_dated_names_and_stars_are_found_and_the_exact_name_wins() -> None:
    table = load_prices()
    assert table.lookup("gpt-4o-2024-08-06") == table.lookup("gpt-4o")
    assert table.lookup("gpt-4o-2024-05-13") != table.lookup("gpt-4o")
    assert table.lookup("simulated-judge") == Price(0.0, 0.0, 0.0, 1.0)
    assert table.lookup("gpt-4o-audio") is None
    assert table.lookup("qwen-max") is None


def test_unknown_models_come_with_a_remedy() -> None:
    line = load_prices().how_to_add("new-model")
    assert '[models."new-model"]' in line
    assert "\n" not in line


def test_an_own_file_extends_and_replaces(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(
        'as_of = "2027-01"\n[models."gpt-4o"]\nprompt = 1\ncached_prompt = 1\ncompletion = 1\n'
        'batch_factor = 1\n[models."new"]\nprompt = 3\ncached_prompt = 3\ncompletion = 3\n'
        "batch_factor = 1\n"
    )
    table = load_prices(own)
    assert table.as_of == "2027-01 over 2026-11"
    assert table.lookup("gpt-4o") == Price(1.0, 1.0, 1.0, 1.0)
    assert table.lookup("new") == Price(3.0, 3.0, 3.0, 1.0)
    assert table.lookup("gpt-4.1") == load_prices().lookup("gpt-4.1")


@pytest.mark.parametrize(
    "text",
    [
        "as_of = ",
        'as_of = "2027"',
        'as_of = "2027"\n[models.x]\nprompt = 1',
        'as_of = "2027"\n[models.x]\nprompt=-1\ncached_prompt=0\ncompletion=0\nbatch_factor=1',
        'as_of = "2027"\n[models.x]\nprompt=nan\ncached_prompt=0\ncompletion=0\nbatch_factor=1',
        'as_of = "2027"\n[models.x]\nprompt=1\ncached_prompt=0\ncompletion="1"\nbatch_factor=1',
        'as_of = "2027"\n[models.x]\nprompt=1\ncached_prompt=0\ncompletion=1\nbatch_facto=1',
        'as_of = "2027"\nmodels = 3',
    ],
)
def test_bad_price_files_are_one_line(tmp_path: Path, text: str) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(text)
    with pytest.raises(PriceTableInvalid) as caught:
        load_prices(own)
    assert str(own) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_price_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriceTableInvalid, match="gone"):
        load_prices(tmp_path / "gone.toml")
