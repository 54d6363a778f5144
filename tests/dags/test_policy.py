"""What holds for every task of every DAG."""

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

ROOT = Path(__file__).resolve().parents[2]
NO_DAG = {"__init__", "alerts", "assets", "common", "spark_submit"}
MODULES = sorted(path.stem for path in (ROOT / "airflow_dags").glob("*.py") if path.stem not in NO_DAG)
BY_HAND = {"check", "wanted", "approve", "approved"}
"""Tasks that take no server's time: no pool, no second try."""


@pytest.fixture(params=MODULES)
def dag(request: pytest.FixtureRequest, bag: DagBag):
    assert not bag.import_errors
    return bag.dags[request.param]


def test_every_dag_is_named_like_its_file(bag: DagBag) -> None:
    assert not bag.import_errors
    assert sorted(bag.dags) == MODULES


def test_a_dag_says_what_it_does_and_where_its_runbook_is(dag) -> None:
    assert "docs/operations.md" in (dag.doc_md or "")
    assert dag.tags == {"lode"}
    assert dag.catchup is False


def test_a_dag_has_a_deadline_that_tells_people(dag) -> None:
    assert [alert.callback.path for alert in dag.deadline] == ["airflow_dags.alerts.on_deadline"]


def test_a_task_has_an_owner_a_text_a_limit_and_somebody_to_tell(dag) -> None:
    for task in dag.tasks:
        assert task.owner == "lode", task.task_id
        assert task.doc_md, task.task_id
        assert task.execution_timeout or task.response_timeout, task.task_id
        assert [callback.__name__ for callback in task.on_failure_callback] == ["on_task_failure"], task.task_id


def test_a_job_is_retried_with_back_off_and_limited_by_the_pool_of_its_system(dag) -> None:
    for task in dag.tasks:
        if task.task_id in BY_HAND:
            assert task.retries == 0, task.task_id
            continue
        assert task.retries == 3, task.task_id
        assert task.retry_exponential_backoff, task.task_id
        assert task.pool in {"hdfs", "s3", "hbase", "druid"}, task.task_id
        assert task.name.startswith("lode."), task.task_id


def test_a_job_exists(dag) -> None:
    for task in dag.tasks:
        if task.task_id not in BY_HAND and "{{" not in task.application:
            assert Path(task.application).is_file(), task.application


def test_two_runs_never_follow_one_topic_at_once(bag: DagBag) -> None:
    for name in ("landing", "archive", "serve"):
        assert [task.max_active_tis_per_dag for task in bag.dags[name].tasks] == [1]


def test_replays_are_carried_out_one_at_a_time_and_none_waits_for_another_to_be_approved(bag: DagBag) -> None:
    replay = bag.dags["replay"]
    assert replay.get_task("execute").max_active_tis_per_dag == 1
    assert replay.max_active_runs > 1


def test_a_dag_file_is_short() -> None:
    for module in MODULES:
        assert len((ROOT / "airflow_dags" / f"{module}.py").read_text().splitlines()) <= 80, module


def test_the_pools_are_those_that_lode_airflow_up_makes(bag: DagBag) -> None:
    import json

    made = set(json.loads((ROOT / "conf" / "airflow" / "pools.json").read_text()))
    used = {task.pool for dag in bag.dags.values() for task in dag.tasks if task.task_id not in BY_HAND}
    assert used <= made
