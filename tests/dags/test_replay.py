"""The replay's form, and its first task, through dag.test."""

import copy

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError
from airflow.utils.state import DagRunState, TaskInstanceState

GOOD = {"topic": "events", "since": "2026-11-02T00:00:00+00:00", "until": "2026-11-03T00:00:00+00:00"}


def states(bag: DagBag, **values: object) -> tuple[str, dict[str, str]]:
    dag = copy.copy(bag.dags["replay"])
    dag.deadline = None  # dag.test of 3.3.2 hands its dict to SQL as a UUID when a run succeeds
    run = dag.test(run_conf=GOOD | values, mark_success_pattern="plan|execute|verify|approve$")
    return run.state, {task.task_id: task.state for task in run.get_task_instances()}


@pytest.mark.parametrize(
    "values",
    [{"topic": "evnts"}, {"sink": "s3"}, {"cluster": "dev"}, {"dry_run": "perhaps"}],
    ids=lambda values: next(iter(values)),
)
def test_what_the_form_refuses_makes_no_run(bag: DagBag, values: dict[str, object]) -> None:
    with pytest.raises(ParamValidationError, match=str(next(iter(values.values())))):
        states(bag, **values)


@pytest.mark.parametrize("missing", ["topic", "since", "until"])
def test_a_field_without_default_is_required(bag: DagBag, missing: str) -> None:
    with pytest.raises(ParamValidationError):
        bag.dags["replay"].test(run_conf={name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize(
    "values", [{"until": GOOD["since"]}, {"since": "yesterday"}, {"sink": "kafka", "cluster": "loki"}]
)
def test_what_the_form_cannot_check_fails_the_first_task(bag: DagBag, values: dict[str, object]) -> None:
    run, tasks = states(bag, **values)
    assert run == DagRunState.FAILED
    assert tasks["check"] == TaskInstanceState.FAILED
    assert tasks["plan"] == TaskInstanceState.UPSTREAM_FAILED


def test_a_dry_run_ends_after_the_plan(bag: DagBag) -> None:
    run, tasks = states(bag)
    assert run == DagRunState.SUCCESS
    assert tasks["plan"] == TaskInstanceState.SUCCESS
    assert {tasks[name] for name in ("approve", "execute", "verify")} == {TaskInstanceState.SKIPPED}
