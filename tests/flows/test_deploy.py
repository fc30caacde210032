"""Deployments on a real server: served, registered for workers, and woken by events."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.conftest import ROOT, SMALL, Pref, parquet_bytes, post

pytestmark = pytest.mark.slow


class Api:
    """Prefect's own API, as its UI uses it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, path: str, **body: Any) -> Any:
        return post(self.url, path, body)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.post("/deployments/filter")}

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        wanted = {"deployments": {"name": {"any_": [deployment]}}}
        return list(self.post("/flow_runs/filter", **wanted))


def words(warehouse: Path) -> list[str]:
    settings = [word for one in SMALL for word in ("--set", one)]
    return ["deploy", "attributes", "--warehouse", str(warehouse), *settings]


@pytest.fixture
def served(
    pref: Pref, prefect_server: str, tmp_path: Path
) -> Iterator[tuple[Api, subprocess.Popen[str], Path]]:
    warehouse = tmp_path / "data"
    process = pref.start(*words(warehouse), "--regenerate", "", "--retrain", "")
    api = Api(prefect_server)
    for _ in range(600):
        found = api.deployments().get("evaluate")
        if found and found["parameters"]["config"]["warehouse"] == str(warehouse):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    yield api, process, warehouse
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def finished(api: Api, deployment: str, n_runs: int = 1) -> list[dict[str, Any]]:
    for _ in range(1200):
        runs = [one for one in api.runs(deployment) if one["state_type"] != "SCHEDULED"]
        if len(runs) >= n_runs and all(one["end_time"] for one in runs):
            return runs
        time.sleep(0.2)
    raise AssertionError(api.runs(deployment))


def test_new_preferences_retrain_and_a_new_model_is_measured(
    served: tuple[Api, subprocess.Popen[str], Path],
) -> None:
    api, _, warehouse = served
    found = api.deployments()
    api.post(f"/deployments/{found['regenerate']['id']}/create_flow_run")
    [regenerated] = finished(api, "regenerate")
    [retrained] = finished(api, "retrain")
    [evaluated] = finished(api, "evaluate")
    for run in (regenerated, retrained, evaluated):
        assert run["state_type"] == "COMPLETED", run["state"]
    assert list(warehouse.glob("report/version=*/report.html"))
    # The same once more: nothing is new, so nothing wakes and nothing is bought.
    api.post(f"/deployments/{found['regenerate']['id']}/create_flow_run")
    finished(api, "regenerate", 2)
    time.sleep(10)
    assert len(api.runs("retrain")) == len(api.runs("evaluate")) == 1


def test_parameters_are_a_form_with_types_and_descriptions(
    served: tuple[Api, subprocess.Popen[str], Path],
) -> None:
    api, _, warehouse = served
    one = api.deployments()["retrain"]
    schema = one["parameter_openapi_schema"]
    assert schema["properties"]["until"]["enum"] == ["split", "auc", "report"]
    assert "max_in_flight" in schema["definitions"]["CallSettings"]["properties"]
    config = one["parameters"]["config"]
    assert config["warehouse"] == str(warehouse)
    assert config["calls"]["max_calls"] == 0
    assert one["concurrency_limit"] == 1 or one["global_concurrency_limit"]["limit"] == 1


def test_a_pool_gets_the_deployments_of_prefect_yaml(
    pref: Pref, prefect_server: str, tmp_path: Path
) -> None:
    done = pref.run(*words(tmp_path / "data"), "--work-pool", "pref-test")
    assert done.code == 0, done.err
    told = done.out.splitlines()
    assert told[:3] == ["attributes/regenerate", "attributes/retrain", "attributes/evaluate"]
    found = Api(prefect_server).deployments()
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
    for one in written["deployments"]:
        made = found[one["name"]]
        crons = [each["schedule"]["cron"] for each in made["schedules"]]
        assert crons == [each["cron"] for each in one["schedules"]]
        assert made["parameters"]["until"] == one["parameters"]["until"]
        assert made["work_pool_name"] == "pref-test"
    assert "OPENAI_API_KEY" not in json.dumps(found)


@contextmanager
def workers(pref: Pref, pool: str, n: int) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    found = [
        subprocess.Popen(
            command,
            env=pref.env,
            cwd=pref.env["HOME"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(n)
    ]
    try:
        yield
    finally:
        for one in found:
            one.terminate()
        for one in found:
            try:
                one.wait(timeout=60)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


@pytest.mark.alone
def test_two_workers_of_a_pool_make_the_bytes_that_one_run_makes(
    pref: Pref, prefect_server: str, tmp_path: Path
) -> None:
    warehouse, alone = tmp_path / "data", tmp_path / "alone"
    to_pool = ["--work-pool", "pref-two", "--regenerate", "", "--retrain", "", "--label", "two"]
    assert pref.run(*words(warehouse), *to_pool).code == 0
    api = Api(prefect_server)
    with workers(pref, "pref-two", 2):
        found = api.deployments()
        api.post(f"/deployments/{found['two-regenerate']['id']}/create_flow_run")
        for name in ("two-regenerate", "two-retrain", "two-evaluate"):
            [run] = finished(api, name)
            assert run["state_type"] == "COMPLETED", run["state"]
    done = pref.attributes(alone)
    assert done.code == 0, done.err
    assert parquet_bytes(warehouse) == parquet_bytes(alone)


def test_deploying_without_a_server_is_one_line(pref_without_server: Pref, tmp_path: Path) -> None:
    done = pref_without_server.run(*words(tmp_path / "data"))
    assert done.code == 2
    assert "PREFECT_API_URL" in done.line
