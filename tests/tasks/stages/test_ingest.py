from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks._stages.ingest import STAGE, build, describe_prompts, read_prompt_file
from tasks.errors import InputRejected
from tests.tasks.stages.conftest import Bench

ROWS = [{"id": f"q{number}", "instruction": f"Question {number}?"} for number in range(5)]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        lines = ["id,instruction", *(f"{row['id']},{row['instruction']}" for row in ROWS)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        path.write_text(json.dumps(ROWS))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".json"])
def test_every_layout_gives_the_same_prompts(tmp_path: Path, suffix: str) -> None:
    found = read_prompt_file(write(tmp_path / f"prompts{suffix}"))
    assert found == [(row["id"], row["instruction"]) for row in ROWS]


def test_alpaca_eval_outputs_without_ids_are_read_by_instruction(tmp_path: Path) -> None:
    path = tmp_path / "model_outputs.json"
    path.write_text(json.dumps([{"dataset": "x", "instruction": "Say hi.", "output": "hi"}]))
    assert read_prompt_file(path) == [("row000000", "Say hi.")]


def test_the_real_alpaca_eval_instructions_are_read(alpaca_instructions: Path) -> None:
    found = read_prompt_file(alpaca_instructions)
    assert len(found) == 805
    assert found[0][0] == "ae000"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "p.jsonl",
            '{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n',
            "1 duplicate ids (a)",
        ),
        (
            "p.jsonl",
            '{"id": "a", "prompt": " "}\n{"id": "b", "prompt": ""}\n',
            "2 empty prompts (rows 1, 2)",
        ),
        ("p.jsonl", '{"id": "a", "title": "x"}\n', "expected one of prompt_text, instruction"),
        ("p.jsonl", '{"id": "a", ', "could not be read as .jsonl"),
        ("p.json", '{"a": 1}', "expected a list of objects"),
        ("p.json", "[1, 2]", "expected a list of objects"),
        ("p.csv", "id,prompt\n", "no rows"),
        ("p.parquet", "not parquet", "could not be read as .parquet"),
        ("p.xlsx", "", "ends in .xlsx"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputRejected) as caught:
        read_prompt_file(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_of_a_file_are_said_together(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "prompt": ""}\n{"id": "a", "prompt": "x"}\n{"prompt": "y"}\n')
    with pytest.raises(InputRejected, match=r"empty prompts.*without id.*duplicate ids"):
        read_prompt_file(path)


def test_the_version_knows_the_file_s_content_and_not_its_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
        write(folder / "prompts.jsonl")
    assert describe_prompts(str(first / "prompts.jsonl")) == describe_prompts(
        str(second / "prompts.jsonl")
    )
    with (second / "prompts.jsonl").open("a") as file:
        file.write("\n")
    assert describe_prompts(str(first / "prompts.jsonl")) != describe_prompts(
        str(second / "prompts.jsonl")
    )


def test_appending_a_prompt_moves_at_most_one_of_the_chosen(bench: Bench) -> None:
    config = {**describe_prompts(None), "n_prompts": 20, "n_personas": None, "seed": 0}
    chosen = build(bench.inputs(STAGE, **config))["prompts"].rows
    again = build(bench.inputs(STAGE, **config))["prompts"].rows
    assert isinstance(chosen, pa.Table)
    assert chosen == again
    other = build(bench.inputs(STAGE, **{**config, "seed": 1}))["prompts"].rows
    assert chosen != other


def test_more_prompts_than_there_are_cannot_be_drawn(bench: Bench) -> None:
    config = {**describe_prompts(None), "n_prompts": 10_000, "n_personas": None, "seed": 0}
    with pytest.raises(InputRejected, match=r"expected at least ingest\.n_prompts = 10000"):
        build(bench.inputs(STAGE, **config))
