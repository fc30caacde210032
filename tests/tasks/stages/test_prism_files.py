"""PRISM's files are read as they are, or refused as a whole in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks._stages.prism_files import (
    FILES,
    describe_prism,
    prism_folder,
    read_prism,
)
from tasks.errors import InputRejected
from tests.conftest import SHARED
from tests.tasks.stages.prism_rows import (
    conversation_rows,
    survey_rows,
    utterance_rows,
    write_prism,
)

SAMPLE = SHARED / "data" / "prism"


@pytest.fixture
def sample() -> Path:
    if not SAMPLE.is_dir():
        pytest.skip("the sample of PRISM is not beside this checkout")
    return SAMPLE


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def test_the_sample_is_read_whole_and_its_empty_responses_are_none(sample: Path) -> None:
    data = read_prism(prism_folder(str(sample)))
    assert len(data.survey) == len(lines(sample / "survey.jsonl")) == 218
    assert len(data.openings) == len(lines(sample / "conversations.jsonl")) == 1072
    told = lines(sample / "utterances.jsonl")
    empty = [row for row in told if row["model_response"] == "EMPTY STRING"]
    assert len(data.responses) == len(told) - len(empty)
    assert all(one.score is None and one.model is None for one in data.responses)
    assert all(one.text for one in data.responses)


def test_only_first_turns_are_kept_and_rows_are_in_order_of_id(tmp_path: Path) -> None:
    shuffled = list(reversed(utterance_rows()))
    data = read_prism(write_prism(tmp_path, utterances=shuffled))
    assert [one.utterance_id for one in data.responses] == [
        f"t{number}{place}" for number in range(6) for place in range(2)
    ]
    assert "Z" not in {one.text for one in data.responses}
    assert data == read_prism(write_prism(tmp_path / "other"))


def test_scores_and_choices_are_nulls_where_they_are_absent(tmp_path: Path) -> None:
    bare = [
        {name: row[name] for name in ("utterance_id", "conversation_id", "turn", "model_response")}
        for row in utterance_rows()
    ]
    for one in read_prism(write_prism(tmp_path, utterances=bare)).responses:
        assert (one.score, one.is_chosen, one.model) == (None, None, None)


def test_a_text_with_a_line_separator_is_one_row(tmp_path: Path) -> None:
    rows = conversation_rows()
    rows[0]["opening_prompt"] = "one\u2028two\x85three"
    data = read_prism(write_prism(tmp_path, conversations=rows))
    assert data.openings[0].prompt == "one\u2028two\x85three"


def test_faults_of_all_files_are_told_together_in_one_line(tmp_path: Path) -> None:
    survey = [*survey_rows(), {"age": "x"}, survey_rows()[0], "[1]"]
    conversations = conversation_rows()
    conversations[1]["user_id"] = "nobody"
    conversations[2]["conversation_type"] = "guided"
    conversations[3]["opening_prompt"] = " "
    utterances = [*utterance_rows(), "{not JSON"]
    utterances[0]["score"] = 101
    utterances[1]["conversation_id"] = "c99"
    utterances[2]["if_chosen"] = "yes"
    del utterances[3]["turn"]
    with pytest.raises(InputRejected) as caught:
        read_prism(
            write_prism(tmp_path, survey=survey, conversations=conversations, utterances=utterances)
        )
    told = str(caught.value)
    for fault in (
        "survey.jsonl: no user_id in 1 row (7)",
        "survey.jsonl: a user_id that was there before in 1 row (8)",
        "survey.jsonl: JSON that is no object in 1 row (9)",
        "conversations.jsonl: a user_id that the survey does not have in 1 row (2)",
        "unguided or values guided or controversy guided in 1 row (3)",
        "opening_prompt that is not a non-blank text in 1 row (4)",
        "utterances.jsonl: score that is not a number from 1 to 100 or null in 1 row (1)",
        "utterances.jsonl: a conversation_id that is no conversation in 1 row (2)",
        "utterances.jsonl: if_chosen that is not true, false or null in 1 row (3)",
        "utterances.jsonl: no turn in 1 row (4)",
        "utterances.jsonl: no JSON in 1 row (19)",
        "nothing was imported",
    ):
        assert fault in told, fault
    assert "\n" not in told
    # Responses of the faulty conversations are not told as faults of their own.
    assert told.count("no conversation") == 1


def test_crowds_of_faults_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    rows = [{**row, "turn": -1} for row in utterance_rows()]
    with pytest.raises(InputRejected, match=r"from 0 in 18 rows \(1, 2, 3, …\)"):
        read_prism(write_prism(tmp_path, utterances=rows))


def test_an_empty_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match=r"utterances\.jsonl: no rows;"):
        read_prism(write_prism(tmp_path, utterances=[]))


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "/nowhere/at/all", "", "own er/name"])
def test_what_is_neither_folder_nor_hub_id_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="expected"):
        prism_folder(str(tmp_path / "x") if source == "" else source)


def test_a_folder_without_a_file_is_refused_with_its_name(tmp_path: Path) -> None:
    write_prism(tmp_path)
    (tmp_path / "utterances.jsonl").unlink()
    with pytest.raises(InputRejected, match=r"lacks utterances\.jsonl;"):
        prism_folder(str(tmp_path))


def test_a_hub_id_is_downloaded_without_what_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = write_prism(tmp_path / "hub")
    (there / "metadata.jsonl").write_text("{}\n")
    asked: list[dict[str, Any]] = []

    def stand_in(**words: Any) -> str:
        asked.append(words)
        cached = tmp_path / "cache"
        cached.mkdir(exist_ok=True)
        for name in words["allow_patterns"]:
            shutil.copy(there / name, cached)
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", stand_in)
    folder = prism_folder("some-owner/prism", "v1")
    assert prism_folder("some-owner/prism", "v1") == folder
    assert asked == [
        {
            "repo_id": "some-owner/prism",
            "repo_type": "dataset",
            "revision": "v1",
            "allow_patterns": list(FILES),
        }
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    # The same bytes are the same data, wherever they come from.
    assert describe_prism(folder) == describe_prism(there)
    assert read_prism(folder) == read_prism(there)


def test_a_hub_that_does_not_answer_costs_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(**words: Any) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", stand_in)
    with pytest.raises(InputRejected, match="no route to host") as caught:
        prism_folder("some-owner/unreachable")
    assert "\n" not in str(caught.value)


def test_the_description_follows_the_content_of_each_file(tmp_path: Path) -> None:
    before = describe_prism(write_prism(tmp_path))
    assert set(before) == {"survey_sha256", "conversations_sha256", "utterances_sha256"}
    for name in FILES:
        text = (tmp_path / name).read_text("utf-8")
        (tmp_path / name).write_text(text + "\n", "utf-8")
        assert describe_prism(tmp_path) != before
        (tmp_path / name).write_text(text, "utf-8")
    assert describe_prism(tmp_path) == before
