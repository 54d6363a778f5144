"""A real Airflow with a real scheduler on the real stack: what is landed by the hour is analysed by the day, once, and is
then in Druid; a replay waits for a person, and leaves the ledger entry that it leaves without Airflow."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from deployments import Deployment
from faults_common import in_kafka

from pipeline_lib.airflow.connection import as_json, spark_connection
from pipeline_lib.airflow.local import LocalAirflow
from pipeline_lib.config import load_config
from pipeline_lib.datasets import events_path
from pipeline_lib.druid.load import rows_served
from pipeline_lib.io.druid import Druid
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.spark import Session
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

    def trigger(self, dag: str, conf: dict[str, Any]) -> dict[str, Any]:
        run = self.ask("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        assert isinstance(run, dict)
        return run

    def waits_for_a_person(self, run: dict[str, Any], within: float = 180) -> dict[str, Any]:
        """What the person sees, once the run waits."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            found = self.ask("GET", f"{self._path(run)}/hitlDetails")["hitl_details"]
            if found and not found[0]["response_received"]:
                return dict(found[0])
            time.sleep(1)
        raise AssertionError(self.ask("GET", f"{self._path(run)}/taskInstances"))

    def approve(self, run: dict[str, Any]) -> None:
        path = f"{self._path(run)}/taskInstances/approve/-1/hitlDetails"
        self.ask("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})

    def state(self, run: dict[str, Any], within: float = 240) -> str:
        """How a run ended."""
        deadline = time.monotonic() + within
        while (found := self.ask("GET", self._path(run)))["state"] not in ("success", "failed"):
            assert time.monotonic() < deadline, self.ask("GET", f"{self._path(run)}/taskInstances")
            time.sleep(1)
        return str(found["state"])

    def _path(self, run: dict[str, Any]) -> str:
        return f"dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}"

    def result(self, run: dict[str, Any], task: str) -> dict[str, Any]:
        path = f"{self._path(run)}/taskInstances/{task}/xcomEntries/return_value"
        value = self.ask("GET", path)["value"]
        assert isinstance(value, dict)
        return value


@pytest.fixture(scope="module")
def standard(stack: Stack) -> Iterator[Deployment]:
    """conf/local.toml on this session's servers."""
    stack.up(["druid"])
    path = ROOT / "conf" / "local.toml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LODE_STACK_HOME", str(stack.home))
        yield Deployment(path, load_config(path))


@pytest.fixture(scope="module")
def airflow(standard: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    local = LocalAirflow(tmp_path_factory.mktemp("airflow"))
    try:
        yield Client(local.up(as_json(spark_connection(standard.config, standard.path, standard.config.stack))))
        assert {each.state for each in local.status()} == {"up"}
    finally:
        local.down()
        assert {each.state for each in local.status()} == {"stopped"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_day_is_analysed_once_when_its_24_hours_have_landed(
    standard: Deployment, airflow: Client, spark: Session, tmp_path: Path
) -> None:
    """A job takes 10 to 30 s, so that 22 hours are landed by one job, and Airflow is told; the rest Airflow lands."""
    days = ["--days", "1", "--visitors-per-day", "200", "--since", DAY]
    standard.lode("generate", TOPIC, *days, "--truth", str(tmp_path / "truth.json"))
    truth = json.loads((tmp_path / "truth.json").read_text())
    standard.lode("land", TOPIC, "--until", f"{DAY}T22:00:00")
    airflow.unpause("druid")
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
    (loading,) = airflow.ended("druid", 1, partition=DAY)
    assert loading["state"] == "success"
    table = events_path(standard.config.hdfs, TOPIC)
    events = spark.read.format("delta").load(table).where(f"quality = 'ok' AND date = '{DAY}'").count()
    assert events > 1000
    assert standard.config.druid
    druid, day = Druid(standard.config.druid), f"{DAY}/2026-11-21"
    assert rows_served(druid, TOPIC, day) == events
    assert rows_served(druid, "experiments_results", day) > analysed["results"]
    assert rows_served(druid, "experiments_traffic", day) > 0
    again = {**hours, "from_date": hours["to_date"], "reprocess_behavior": "completed"}
    airflow.ask("POST", "backfills", {"dag_id": "landing", **again})
    # While Airflow lands the hour again, a person does so too.
    by_hand = standard.lode("land", TOPIC, check=None)
    assert by_hand.returncode in (0, 11)
    airflow.ended("landing", 2, partition=DAY)
    assert len(airflow.runs("analysis", partition=DAY)) == 1
    assert spark.read.format("delta").load(table).where("quality = 'ok'").count() == truth["events"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_replay_waits_for_a_person_and_is_the_one_of_the_command_line(standard: Deployment, airflow: Client) -> None:
    standard.lode("generate", TOPIC, "--days", "1", "--visitors-per-day", "200", "--since", DAY)
    standard.lode("archive", TOPIC)
    form = {
        "topic": TOPIC,
        "since": f"{DAY}T00:00:00Z",
        "until": "2026-11-21T00:00:00Z",
        "sink": "kafka",
        "cluster": "both",
    }
    airflow.unpause("replay")

    empty_topic(standard)
    run = airflow.trigger("replay", {**form, "dry_run": False})
    seen = airflow.waits_for_a_person(run)
    planned = airflow.result(run, "plan")
    assert planned["digest"] in seen["subject"]
    assert f"records: {planned['records']}" in seen["body"]
    assert records_of(standard) == 0
    time.sleep(5)  # as a person reads: an answer within a second of the question fails the task (Airflow 3.3.2)
    airflow.approve(run)
    assert airflow.state(run) == "success"
    by_airflow = standard.ledger_entry(planned["digest"])
    assert (by_airflow["status"], by_airflow["missing"]) == ("done", 0)
    assert records_of(standard) == by_airflow["records"] > 0

    empty_topic(standard)
    span = ["--since", form["since"], "--until", form["until"]]
    digest = json.loads(standard.lode("replay", "kafka", TOPIC, *span, "--json").stdout)["digest"]
    standard.lode("replay", "kafka", TOPIC, *span, "--execute", digest)
    assert standard.ledger_entry(digest) == by_airflow


def empty_topic(deployment: Deployment) -> None:
    """The topic is lost, and made again."""
    with Kafka(deployment.config.kafka) as kafka:
        partitions = len(kafka.describe(TOPIC).partitions)
        kafka.delete_topic(TOPIC)
        kafka.create_topic(TOPIC, partitions, {"retention.ms": "-1"})


def records_of(deployment: Deployment) -> int:
    with Kafka(deployment.config.kafka) as kafka:
        return sum(table.num_rows for table in in_kafka(kafka, kafka.describe(TOPIC)).values())
