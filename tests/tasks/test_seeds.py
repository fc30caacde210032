from __future__ import annotations

from collections import Counter

from tasks._seeds import stable_choice, stable_integer, stable_shuffle


def test_a_draw_depends_on_seed_and_ids_alone() -> None:
    assert stable_integer(1, "a", "b") == stable_integer(1, "a", "b")
    assert (
        len({stable_integer(1, "a", "b"), stable_integer(2, "a", "b"), stable_integer(1, "ab")})
        == 3
    )


def test_adding_an_id_moves_no_other_id() -> None:
    ids = [f"p{number}" for number in range(50)]
    before = stable_shuffle(7, "prompts", ids)
    after = stable_shuffle(7, "prompts", [*ids, "new"])
    assert [one for one in after if one != "new"] == before


def test_the_order_of_the_input_does_not_matter() -> None:
    ids = [f"p{number}" for number in range(50)]
    assert stable_shuffle(7, "x", ids) == stable_shuffle(7, "x", reversed(ids))


def test_choices_are_about_uniform() -> None:
    counts = Counter(stable_choice(0, "abcd", str(number)) for number in range(4000))
    # 4000 draws of 4: standard deviation 27, so 150 is beyond five of them.
    assert all(abs(count - 1000) < 150 for count in counts.values())
