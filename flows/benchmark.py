"""The paper's protocol on a preference matrix that is there, as one resumable flow."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.benchmark import BENCHMARK
from tasks.benchmark_plan import adopted
from tasks.chain import Chain
from tasks.config import BenchmarkConfig
from tasks.summary import summarize_benchmark


@flow(name="benchmark", persist_result=False)
def benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    """Compares methods, ablations, numbers of base rewards, labels and questions on one matrix.

    A seed is a split, 80/20 over users and over prompts, into training, validation, calibration
    and test, and every random choice of a method. New users answer about seen pairs and are
    tested on new ones by their own labels. Five seeds in a row make every user new once.

    Each arm on each seed is a cell that is computed once: killed in the middle, the same command
    goes on; one more seed or method computes only that. No model is asked anything.

    Args:
        config: See `tasks.config.BenchmarkConfig`. The matrix is the warehouse's current one.

    Returns:
        The summary that ``pref benchmark --json`` prints.
    """
    with Chain("benchmark", config) as chain:
        chain.adopt(adopted(config))
        chain.parts(BENCHMARK)
    return summarize_benchmark(config, chain)
