import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2Model

from benchmarks.gpu_training import QWEN, flop_a_token

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def qwen():
    with torch.device("meta"):
        return Qwen2Model(Qwen2Config(**QWEN))


def test_the_architecture_has_the_published_number_of_weights(qwen):
    assert sum(weight.numel() for weight in qwen.parameters()) == 494_032_768
    assert qwen.config.rope_parameters["rope_theta"] == 1e6


def test_counted_work_is_two_operations_a_weight_plus_attention(qwen):
    attention = 2 * 512 * 896 * 24
    linear = sum(w.numel() for name, w in qwen.named_parameters() if "proj.weight" in name)
    assert flop_a_token(qwen, 512) == 2 * linear + attention


@pytest.mark.slow
def test_the_tiny_run_reports_every_figure_on_any_machine(tmp_path):
    blocked = (
        "prefect",
        "openai",
        "duckdb",
        "sqlalchemy",
        "pydantic",
        "jinja2",
        "typer",
        "prompts",
    )
    program = f"""
import runpy, sys
for name in {blocked!r}: sys.modules[name] = None
sys.argv = ["gpu_training.py", "--tiny", "--json"]
runpy.run_path({str(ROOT / "benchmarks" / "gpu_training.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for part in ("training, grouped by pair", "training, a label at a time", "extraction"):
        assert found[part]["tokens_per_s"] > 0.0
        assert found[part]["share_of_matmul_rate"] > 0.0
    assert found["times_more_labels_per_s_when_grouped"] > 1.0
