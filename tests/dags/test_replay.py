"""The replay's form, and its first task, through dag.test."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError
from airflow.utils.state import DagRunState, TaskInstanceState

from airflow_dags.replay import SHOWN

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"topic": "events", "since": "2026-11-02T00:00:00+00:00", "until": "2026-11-03T00:00:00+00:00"}


@pytest.fixture
def bag() -> DagBag:
    """Read again for each test: dag.test leaves the values of a run in the form."""
    return DagBag(ROOT / "airflow_dags" / "replay.py")


def states(bag: DagBag, **values: object) -> tuple[str, dict[str, str]]:
    dag = bag.dags["replay"]
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


def test_a_person_sees_the_plan_with_its_numbers_grouped(bag: DagBag) -> None:
    approve = bag.dags["replay"].get_task("approve")
    plan = dict.fromkeys(SHOWN, "x") | {"digest": "0f1e", "records": "at most 1,440", "bytes in the archive": 3_456_789}
    context = {"params": GOOD | {"sink": "kafka"}, "ti": SimpleNamespace(xcom_pull=lambda task_ids: plan)}
    subject, body = (approve.render_template(text, context) for text in (approve.subject, approve.body))
    assert subject == "Replay events to kafka, plan 0f1e"
    assert {"- digest: 0f1e", "- records: at most 1,440", "- bytes in the archive: 3,456,789"} < set(body.splitlines())


def words(bag: DagBag, **values: object) -> list[str]:
    return (
        bag.dags["replay"]
        .get_task("check")
        .python_callable(params={"sink": "hbase", "cluster": "both"} | GOOD | values)
    )


def test_the_form_becomes_the_words_of_the_command(bag: DagBag) -> None:
    span = ["events", "--since", GOOD["since"], "--until", GOOD["until"]]
    assert words(bag) == [*span, "--by", "event_time"]
    assert words(bag, cluster="loki") == [*span, "--cluster", "loki", "--by", "event_time"]
    assert words(bag, sink="kafka", since="2026-11-02T00:00:00") == span  # without an offset it is UTC


@pytest.mark.parametrize(("cluster", "right"), [("both", "prod"), ("prod", "prod"), ("loki", "loki")])
def test_what_is_executed_has_the_digest_of_what_was_shown(bag: DagBag, cluster: str, right: str) -> None:
    approved = bag.dags["replay"].get_task("approved").python_callable
    params = GOOD | {"sink": "hbase", "cluster": cluster}
    asked = words(bag, cluster=cluster)
    made = approved(asked, {"digest": "0f1e"}, params=params)
    assert made["execute"] == [*asked, "--execute", "0f1e"]
    assert made["verify"] == [*asked[:5], "--left", "archive", "--right", right]
    kafka = approved(asked[:5], {"digest": "0f1e"}, params=params | {"sink": "kafka"})
    assert kafka["verify"] == kafka["execute"] == [*asked[:5], "--execute", "0f1e"]
