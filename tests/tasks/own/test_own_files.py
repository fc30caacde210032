"""A team's files are read as they are, or refused as a whole in one line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks._stages.own_files import describe_own, own_files, read_own
from tasks.errors import InputRejected
from tests.tasks.own.data import Rows, own_rows, write_own


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_format_says_the_same(ending: str, tmp_path: Path) -> None:
    rows = own_rows()
    told = read_own(str(write_own(tmp_path / "jsonl", rows)))
    assert read_own(str(write_own(tmp_path / ending, rows, ending))) == told
    assert len(told.answers) == 48
    assert told.answers[0][1].answered_at == datetime(2026, 1, 1, 10, tzinfo=UTC)


def test_whole_numbers_are_ids_and_name_what_the_same_digits_name(tmp_path: Path) -> None:
    rows = own_rows(2)
    for row in rows["users"]:
        row["user_id"] = int(row["user_id"][1:])
    for row in rows["preferences"]:
        row["user_id"] = row["user_id"][1:]
    assert set(read_own(str(write_own(tmp_path, rows))).users) == {"0", "1"}


def test_users_are_who_answered_where_there_is_no_file_of_them(tmp_path: Path) -> None:
    rows = own_rows(3)
    del rows["users"]
    users = read_own(str(write_own(tmp_path, rows))).users
    assert set(users) == {"u0", "u1", "u2"}
    assert all(one.profile is None for one in users.values())


def test_weights_and_times_may_be_left_out(tmp_path: Path) -> None:
    rows = own_rows(2)
    for row in rows["preferences"]:
        del row["weight"], row["time"]
    assert {
        (one.weight, one.answered_at) for _, one in read_own(str(write_own(tmp_path, rows))).answers
    } == {(1.0, None)}


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    rows = own_rows(2)
    rows["preferences"][3]["wieght"] = 2
    assert read_own(str(write_own(tmp_path, rows))).ignored == {"preferences.jsonl": ("wieght",)}


def test_faults_of_all_files_are_told_together_with_their_rows(tmp_path: Path) -> None:
    rows = own_rows(4)
    rows["prompts"][1]["prompt_text"] = " "
    rows["prompts"][2]["prompt_id"] = rows["prompts"][3]["prompt_id"]
    rows["responses"][0]["response_text"] = None
    rows["responses"][2]["prompt_id"] = "nowhere"
    del rows["users"][0]["user_id"]
    answers = rows["preferences"]
    answers[1]["preference"] = 1.5
    answers[2]["preference"] = "much"
    answers[3]["weight"] = 0
    answers[4]["time"] = "2026-01-01T10:00:00"
    answers[5]["response_b_id"] = "nothing"
    answers[6]["response_b_id"] = answers[6]["response_a_id"]
    answers[7]["response_b_id"] = answers[0]["response_b_id"]
    answers[8]["preference"] = True
    folder = write_own(tmp_path, rows)
    with (folder / "preferences.jsonl").open("a", encoding="utf-8") as file:
        file.write("{not JSON\n[1]\n")
    with pytest.raises(InputRejected) as caught:
        read_own(str(folder))
    told = str(caught.value)
    for fault in (
        "prompts.jsonl: prompt_text that is not a non-blank text in 1 row (2)",
        "prompts.jsonl: a prompt_id that was there before in 1 row (4)",
        "responses.jsonl: no response_text in 1 row (1)",
        "responses.jsonl: a prompt_id that the prompts do not have in 3 rows (3, 5, 6)",
        "users.jsonl: no user_id in 1 row (1)",
        "preferences.jsonl: preference that is not a number from 0 to 1 in 3 rows (2, 3, 9)",
        "preferences.jsonl: weight that is not a number above 0 or null in 1 row (4)",
        "preferences.jsonl: time that is not an ISO 8601 time with its zone or null in 1 row (5)",
        "preferences.jsonl: a response_b_id that the responses do not have in 1 row (6)",
        "preferences.jsonl: twice the same response in 1 row (7)",
        "preferences.jsonl: responses to two different prompts in 1 row (8)",
        "preferences.jsonl: no JSON in 1 row (17)",
        "preferences.jsonl: JSON that is no object in 1 row (18)",
        "nothing was imported",
    ):
        assert fault in told, fault
    assert "\n" not in told


def test_crowds_of_faults_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    rows = own_rows()
    for row in rows["preferences"]:
        row["preference"] = -1
    with pytest.raises(InputRejected, match=r"from 0 to 1 in 48 rows \(1, 2, 3, …\)"):
        read_own(str(write_own(tmp_path, rows)))


def test_a_torn_csv_row_is_a_fault_with_its_number(tmp_path: Path) -> None:
    folder = write_own(tmp_path, own_rows(2), "csv")
    with (folder / "prompts.csv").open("a", encoding="utf-8") as file:
        file.write("only-an-id\n")
    with pytest.raises(InputRejected, match=r"not the 2 fields of the header in 1 row \(9\)"):
        read_own(str(folder))


def test_texts_over_lines_and_of_any_length_survive_a_csv(tmp_path: Path) -> None:
    rows = own_rows(2)
    rows["responses"][0]["response_text"] = 'one, "two"\nthree ' + "x" * 200_000
    told = read_own(str(write_own(tmp_path, rows, "csv")))
    assert (
        told.responses[rows["responses"][0]["response_id"]].text
        == rows["responses"][0]["response_text"]
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_of_another_kind_is_refused_in_one_line(ending: str, tmp_path: Path) -> None:
    folder = write_own(tmp_path, own_rows(2), ending)
    (folder / f"prompts.{ending}").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(InputRejected, match=rf"prompts\.{ending}: no") as caught:
        read_own(str(folder))
    assert "\n" not in str(caught.value)


def spoil_nothing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def spoil_twice(folder: Path) -> None:
    (folder / "prompts.csv").write_text("prompt_id,prompt_text\n")


def spoil_empty(folder: Path) -> None:
    (folder / "preferences.jsonl").write_text("")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_nothing, "no prompts; no responses; no preferences"),
        (spoil_twice, r"prompts more than once \(prompts.jsonl, prompts.csv\)"),
        (spoil_empty, "preferences.jsonl: no rows"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(
    spoil: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    folder = write_own(tmp_path, own_rows(2))
    spoil(folder)
    with pytest.raises(InputRejected, match=says):
        read_own(str(folder))


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="is no folder"):
        own_files(str(tmp_path / "nowhere"))


def test_the_description_follows_content_and_not_the_folder(tmp_path: Path) -> None:
    rows: Rows = own_rows(2)
    here = describe_own(str(write_own(tmp_path / "a", rows)))
    assert here == describe_own(str(write_own(tmp_path / "b", rows)))
    rows["preferences"][0]["preference"] = 0.5
    assert here != describe_own(str(write_own(tmp_path / "c", rows)))
