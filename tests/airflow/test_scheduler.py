"""A real Airflow with a real scheduler on the real stack: what is landed by the hour is analysed by the day, once."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from deployments import Deployment

from pipeline_lib.airflow.connection import as_json, spark_connection
from pipeline_lib.airflow.local import LocalAirflow
from pipeline_lib.config import load_config
from pipeline_lib.job import ROOT
from pipeline_lib.stack.stack import Stack

DAY = "2026-11-20"
TOPIC = "events"  # the one that conf/topics declares, and so the DAGs schedule


class Client:
    """Airflow's REST API, as a person's browser uses it."""

    def __init__(self, address: str) -> None:
        self._api = f"{address}/api/v2"
        self._session = requests.Session()
        token = requests.get(f"{address}/auth/token", timeout=60).json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._session.request(method, f"{self._api}/{path}", json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def unpause(self, dag: str) -> None:
        self.ask("PATCH", f"dags/{dag}", {"is_paused": False})

    def runs(self, dag: str, *, partition: str) -> list[dict[str, Any]]:
        runs = self.ask("GET", f"dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return [run for run in runs if (run["partition_key"] or "").startswith(partition)]

    def ended(self, dag: str, count: int, *, partition: str, within: float = 400) -> list[dict[str, Any]]:
        """The runs of a DAG for partitions that begin so, once `count` of them have ended."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            runs = self.runs(dag, partition=partition)
            if len([run for run in runs if run["state"] in ("success", "failed")]) >= count:
                return runs
            time.sleep(1)
        raise AssertionError(f"{dag}: {[(run['dag_run_id'], run['state']) for run in runs]}")

    def result(self, run: dict[str, Any], task: str) -> dict[str, Any]:
        path = f"dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances/{task}/xcomEntries/return_value"
        value = self.ask("GET", path)["value"]
        assert isinstance(value, dict)
        return value


@pytest.fixture
def standard(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """conf/local.toml on this session's servers."""
    monkeypatch.setenv("LODE_STACK_HOME", str(stack.home))
    path = ROOT / "conf" / "local.toml"
    return Deployment(path, load_config(path))


@pytest.fixture
def airflow(standard: Deployment, tmp_path: Path) -> Iterator[Client]:
    local = LocalAirflow(tmp_path / "airflow")
    try:
        yield Client(local.up(as_json(spark_connection(standard.config, standard.path, standard.config.stack))))
        assert {each.state for each in local.status()} == {"up"}
    finally:
        local.down()
        assert {each.state for each in local.status()} == {"stopped"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_day_is_analysed_once_when_its_24_hours_have_landed(standard: Deployment, airflow: Client) -> None:
    """A job takes 10 to 30 s, so that 22 hours are landed by one job, and Airflow is told; the rest Airflow lands."""
    standard.lode("generate", TOPIC, "--days", "1", "--visitors-per-day", "200", "--since", DAY)
    standard.lode("land", TOPIC, "--until", f"{DAY}T22:00:00")
    airflow.unpause("analysis")  # before: events of a paused DAG's assets are not kept for it
    asset = next(a["id"] for a in airflow.ask("GET", "assets")["assets"] if a["name"] == f"landed.{TOPIC}")
    for hour in range(22):
        airflow.ask("POST", "assets/events", {"asset_id": asset, "partition_key": f"{DAY}T{hour:02}:00:00"})
    airflow.unpause("landing")
    hours = {"from_date": f"{DAY}T22:00:00Z", "to_date": f"{DAY}T23:00:00Z", "max_active_runs": 2}
    airflow.ask("POST", "backfills", {"dag_id": "landing", "reprocess_behavior": "none", **hours})
    assert airflow.runs("analysis", partition=DAY) == []
    landed = airflow.ended("landing", 2, partition=DAY)
    assert [run["state"] for run in landed] == ["success", "success"]
    (run,) = airflow.ended("analysis", 1, partition=DAY)
    assert run["state"] == "success"
    analysed = airflow.result(run, "experiments.day")
    assert (analysed["days"], analysed["exit_code"]) == (1, 0)
    assert analysed["results"] > 0
    again = {**hours, "from_date": hours["to_date"], "reprocess_behavior": "completed"}
    airflow.ask("POST", "backfills", {"dag_id": "landing", **again})
    # While Airflow lands the hour again, a person does so too.
    by_hand = standard.lode("land", TOPIC, check=None)
    assert by_hand.returncode in (0, 11)
    airflow.ended("landing", 2, partition=DAY)
    assert len(airflow.runs("analysis", partition=DAY)) == 1
