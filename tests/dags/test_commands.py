"""The spark-submit line of every job of every DAG, as it would run."""

import copy
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time.context import context_to_airflow_vars  # noqa: F401
from airflow.sdk.execution_time.macros import ds_add
from conftest import ARGUMENTS, ROOT

GOLDEN = Path(__file__).with_name("golden")
HOUR, DAY = "2026-11-20T21:00:00", "2026-11-20"
MACROS = SimpleNamespace(datetime=datetime, timedelta=timedelta, ds_add=ds_add)

RUN = SimpleNamespace(run_after=datetime(2026, 11, 22, 3, 30, tzinfo=UTC))


def command(dag, task_id: str, partition_key: str) -> list[str]:
    """The line of a task of a run with this partition key."""
    task = copy.deepcopy(dag.get_task(task_id))
    task.render_template_fields({"dag": dag, "partition_key": partition_key, "macros": MACROS, "dag_run": RUN})
    return task._get_hook()._build_spark_submit_command(task.application)


CASES = [
    ("landing", "events", HOUR),
    ("archive", "events", HOUR),
    ("serve", "events", HOUR),
    ("analysis", "experiments.late", DAY),
    ("analysis", "experiments.day", DAY),
    ("druid", "events.late", DAY),
    ("druid", "events.day", DAY),
    ("druid", "experiments_traffic.late", DAY),
    ("druid", "experiments_traffic.day", DAY),
    ("druid", "experiments_results.late", DAY),
    ("druid", "experiments_results.day", DAY),
    ("maintenance", "events.verify", DAY),
    ("maintenance", "events.compact", DAY),
    ("maintenance", "events.expire", DAY),
    ("maintenance", "events.vacuum", DAY),
]


@pytest.mark.parametrize(("dag_id", "task_id", "key"), CASES, ids=[f"{dag}.{task}" for dag, task, _ in CASES])
def test_the_line_is_the_golden_one(bag: DagBag, dag_id: str, task_id: str, key: str) -> None:
    line = command(bag.dags[dag_id], task_id, key)
    text = "\n".join(line).replace(str(ROOT), "ROOT") + "\n"
    golden = GOLDEN / f"{dag_id}.{task_id}.txt"
    if os.environ.get("REBUILD_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_job_has_a_golden_line(bag: DagBag) -> None:
    jobs = {
        (dag.dag_id, task.task_id) for dag in bag.dags.values() for task in dag.tasks if hasattr(task, "application")
    }
    replay = {("replay", name) for name in ("plan", "execute", "verify")}  # their words come from the form
    assert jobs - replay == {(dag, task) for dag, task, _ in CASES}


def test_no_word_of_a_line_is_a_secret(bag: DagBag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODE_S3_SECRET_KEY", "not-to-be-seen")
    lines = [word for dag, task, key in CASES for word in command(bag.dags[dag], task, key)]
    assert not [word for word in lines if "not-to-be-seen" in word or "secret" in word.lower()]
    assert lines[1 : 1 + len(ARGUMENTS)] == ARGUMENTS
