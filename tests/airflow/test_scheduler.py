"""A real Airflow with a real scheduler on the real stack: what is landed by the hour is analysed by the day, once, and is
then in Druid; a task that Airflow takes for dead commits nothing twice; a replay waits for a person, and leaves the
ledger entry that it leaves without Airflow; people are told what failed and what is late."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from delta.tables import DeltaTable
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

    def tries(self, dag: str) -> dict[str, int]:
        """How often the task of each run of a DAG was tried."""
        tasks = [
            task
            for run in self.runs(dag, partition="")
            for task in self.ask("GET", f"{self._path(run)}/taskInstances")["task_instances"]
        ]
        return {task["dag_run_id"]: task["try_number"] for task in tasks}

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


class Webhook:
    """What the connection `lode_alerts` names: it keeps the alerts that were sent."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                self.alerts.append(json.loads(body))
                handler.send_response(204)
                handler.end_headers()

            def log_message(handler, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self, run: dict[str, Any], within: float = 60) -> dict[str, Any]:
        """The alert about a run, once it has come."""
        return once(lambda: next((a for a in self.alerts if a["run"] == run["dag_run_id"]), None), within)


def once(found: Callable[[], Any], within: float) -> Any:
    """What `found` finds, once that is something."""
    deadline = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with closing(Webhook()) as webhook:
        yield webhook


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalAirflow:
    """An Airflow that takes a task for dead after half a minute without a sign of life, not five."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "airflow.cfg").write_text("[scheduler]\ntask_instance_heartbeat_timeout = 30\n")
    return LocalAirflow(home)


@pytest.fixture(scope="module")
def airflow(standard: Deployment, local: LocalAirflow, webhook: Webhook) -> Iterator[Client]:
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_LODE_ALERTS", json.dumps({"conn_type": "http", "extra": {"url": webhook.url}}))
            yield Client(local.up(as_json(spark_connection(standard.config, standard.path, standard.config.stack))))
        assert {each.state for each in local.status()} == {"up"}
    finally:
        local.down()
        assert {each.state for each in local.status()} == {"stopped"}


def orphaned_landing(local: LocalAirflow, wrote: Callable[[], bool]) -> list[psutil.Process]:
    """Kills the worker that watches a task and stops the task's job when it has written rows that it has not yet
    committed. To Airflow the task is dead; the job's processes, returned, would go on."""
    scheduler = psutil.Process(next(each.pid for each in local.status() if each.name == "scheduler"))

    def running(word: str) -> list[psutil.Process]:
        return [each for each in scheduler.children(recursive=True) if any(word in w for w in words_of(each))]

    once(lambda: running("pyspark.daemon"), within=180)  # Spark starts it for the first of the tasks that write
    job = running("kafka_to_hdfs")
    task = next(each.parent() for each in job if each.name() == "java")
    assert task
    worker = task.parent()
    assert worker
    assert "LocalExecutor" in worker.cmdline()[0]
    worker.kill()
    # First: a process group that is stopped when it loses its last watcher gets a SIGHUP.
    once(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, within=10)

    def wrote_in_a_step() -> bool:
        """The job only runs between two looks: on a busy machine one look takes longer than its commit."""
        for each in job:
            each.resume()
        time.sleep(0.02)
        for each in job:
            each.suspend()
        return wrote()

    once(wrote_in_a_step, within=180)
    return job


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; of one that has ended there is none."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_day_is_analysed_once_when_its_24_hours_have_landed(
    standard: Deployment, local: LocalAirflow, airflow: Client, spark: Session, tmp_path: Path
) -> None:
    """A job takes 10 to 30 s, so that 22 hours are landed by one job, and Airflow is told; the rest Airflow lands, the
    first of it in a task that it takes for dead, and whose job wakes up when all is done."""
    days = ["--days", "1", "--visitors-per-day", "200", "--since", DAY]
    standard.lode("generate", TOPIC, *days, "--truth", str(tmp_path / "truth.json"))
    truth = json.loads((tmp_path / "truth.json").read_text())
    standard.lode("land", TOPIC, "--until", f"{DAY}T22:00:00")
    airflow.unpause("druid")
    airflow.unpause("analysis")  # before: events of a paused DAG's assets are not kept for it
    asset = next(a["id"] for a in airflow.ask("GET", "assets")["assets"] if a["name"] == f"landed.{TOPIC}")
    for hour in range(22):
        airflow.ask("POST", "assets/events", {"asset_id": asset, "partition_key": f"{DAY}T{hour:02}:00:00"})
    table = events_path(standard.config.hdfs, TOPIC)
    files, committed = data_files(standard, table), version(spark, table)
    airflow.unpause("landing")
    hours = {"from_date": f"{DAY}T22:00:00Z", "to_date": f"{DAY}T23:00:00Z", "max_active_runs": 2}
    airflow.ask("POST", "backfills", {"dag_id": "landing", "reprocess_behavior": "none", **hours})
    assert airflow.runs("analysis", partition=DAY) == []
    zombie = orphaned_landing(local, lambda: data_files(standard, table) > files)
    assert version(spark, table) == committed
    landed = airflow.ended("landing", 2, partition=DAY)
    assert [run["state"] for run in landed] == ["success", "success"]
    (run,) = airflow.ended("analysis", 1, partition=DAY)
    assert run["state"] == "success"
    analysed = airflow.result(run, "experiments.day")
    assert (analysed["days"], analysed["exit_code"]) == (1, 0)
    assert analysed["results"] > 0
    (loading,) = airflow.ended("druid", 1, partition=DAY)
    assert loading["state"] == "success"
    assert standard.config.druid
    druid, day = Druid(standard.config.druid), f"{DAY}/2026-11-21"
    assert rows_served(druid, TOPIC, day) in events_of_the_day(spark, table, since=loading["start_date"])
    assert rows_served(druid, "experiments_results", day) > analysed["results"]
    assert rows_served(druid, "experiments_traffic", day) > 0
    once(lambda: 2 in airflow.tries("landing").values(), within=200)
    landings = version(spark, table)
    assert landings > committed
    assert {each.status() for each in zombie} == {psutil.STATUS_STOPPED}
    for each in zombie:
        each.resume()
    _, alive = psutil.wait_procs(zombie, timeout=120)
    assert not alive
    assert version(spark, table) == landings
    assert spark.read.format("delta").load(table).where("quality = 'ok'").count() == truth["events"]
    again = {**hours, "from_date": hours["to_date"], "reprocess_behavior": "completed"}
    airflow.ask("POST", "backfills", {"dag_id": "landing", **again})
    # While Airflow lands the hour again, a person does so too.
    by_hand = standard.lode("land", TOPIC, check=None)
    assert by_hand.returncode in (0, 11)
    airflow.ended("landing", 2, partition=DAY)
    assert len(airflow.runs("analysis", partition=DAY)) == 1
    assert spark.read.format("delta").load(table).where("quality = 'ok'").count() == truth["events"]


def data_files(deployment: Deployment, table: str) -> int:
    """The files of a table's rows, those that no commit names too."""
    path = "/" + table.split("/", 3)[3]

    def files(folder: str) -> int:
        answer = requests.get(f"{deployment.config.hdfs.web}/webhdfs/v1{folder}?op=GETCONTENTSUMMARY", timeout=60)
        return int(answer.json()["ContentSummary"]["fileCount"])

    return files(path) - files(f"{path}/_delta_log")


def events_of_the_day(spark: Session, table: str, since: str) -> set[int]:
    """How many the table has had since then: late events may land before Druid reads it, or just after."""
    history = DeltaTable.forPath(spark, table).history().collect()
    until = datetime.fromisoformat(since).timestamp()
    first = max(each["version"] for each in history if each["timestamp"].timestamp() <= until)
    versions = [
        spark.read.format("delta").option("versionAsOf", number).load(table)
        for number in range(first, history[0]["version"] + 1)
    ]
    counts = {rows.where(f"quality = 'ok' AND date = '{DAY}'").count() for rows in versions}
    assert min(counts) > 1000
    return counts


def version(spark: Session, table: str) -> int:
    return int(DeltaTable.forPath(spark, table).history(1).collect()[0]["version"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_replay_waits_for_a_person_and_is_the_one_of_the_command_line(
    standard: Deployment, local: LocalAirflow, airflow: Client, webhook: Webhook
) -> None:
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

    # While it waits, another is not held up; it fails, and people are told; so they are when the first is late.
    wrong = airflow.trigger("replay", {**form, "until": form["since"]})
    assert airflow.state(wrong) == "failed"
    told = webhook.told(wrong)
    assert (told["level"], told["dag"], told["task"]) == ("page", "replay", "check")
    assert "is not before until" in told["summary"]
    deadline_passes(local, run)
    assert webhook.told(run)["summary"] == "a run is late"

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


def deadline_passes(local: LocalAirflow, run: dict[str, Any]) -> None:
    """Two days go by for this run."""
    with closing(sqlite3.connect(local.home / "airflow.db", timeout=60)) as database, database:
        (number,) = database.execute("SELECT id FROM dag_run WHERE run_id = ?", [run["dag_run_id"]]).fetchone()
        past = "UPDATE deadline SET deadline_time = datetime('now', '-1 minute') WHERE dagrun_id = ?"
        assert database.execute(past, [number]).rowcount == 1


def empty_topic(deployment: Deployment) -> None:
    """The topic is lost, and made again."""
    with Kafka(deployment.config.kafka) as kafka:
        partitions = len(kafka.describe(TOPIC).partitions)
        kafka.delete_topic(TOPIC)
        kafka.create_topic(TOPIC, partitions, {"retention.ms": "-1"})


def records_of(deployment: Deployment) -> int:
    with Kafka(deployment.config.kafka) as kafka:
        return sum(table.num_rows for table in in_kafka(kafka, kafka.describe(TOPIC)).values())
