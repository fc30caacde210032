"""A small team's data, written as any of the three formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks._seeds import stable_integer

Rows = dict[str, list[dict[str, Any]]]


def own_rows(n_users: int = 12, n_prompts: int = 4, *, is_shared: bool = False) -> Rows:
    """Users who each like short or long answers, on prompts of their own or on the same ones."""
    rows: Rows = {"prompts": [], "responses": [], "preferences": [], "users": []}
    for user in range(n_users):
        rows["users"].append({"user_id": f"u{user}", "profile_text": f"Person {user}."})
        for number in range(n_prompts):
            prompt = f"p{number}" if is_shared else f"p{user}-{number}"
            known = {row["prompt_id"] for row in rows["prompts"]}
            if prompt not in known:
                rows["prompts"].append({"prompt_id": prompt, "prompt_text": f"Question {prompt}?"})
                for side, length in (("short", 3), ("long", 30)):
                    draw = stable_integer(0, prompt, side) % 1000
                    text = f"{side} answer {draw} to {prompt}. " + "More words follow. " * length
                    rows["responses"].append(
                        {
                            "response_id": f"{prompt}-{side}",
                            "prompt_id": prompt,
                            "response_text": text,
                        }
                    )
            likes_long = user % 3 != 0
            rows["preferences"].append(
                {
                    "user_id": f"u{user}",
                    # The winner comes first, as in many teams' files.
                    "response_a_id": f"{prompt}-{'long' if likes_long else 'short'}",
                    "response_b_id": f"{prompt}-{'short' if likes_long else 'long'}",
                    "preference": 1.0,
                    "weight": 1.0,
                    "time": f"2026-01-{1 + number:02d}T10:00:00+00:00",
                }
            )
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """One file in the format its name ends in."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def write_own(folder: Path, rows: Rows, ending: str = "jsonl") -> Path:
    """A folder of data."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in rows.items():
        write_rows(folder / f"{name}.{ending}", some)
    return folder
