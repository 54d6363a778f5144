"""How a task ends by the exit code of its job. The job is a three-line program in the place of spark-submit."""

from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from conftest import HOME

from airflow_dags import spark_submit
from airflow_dags.common import spark_job

CONTEXT = {"ti": SimpleNamespace(dag_id="landing", task_id="events", run_id="r")}


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(spark_submit, "send_alert", lambda level, summary, context: sent.append(level))
    return sent


def end(codes: list[int], **arguments):
    """Runs a job whose tries end with these codes, each after it has printed its result."""
    (HOME / "bin").mkdir(exist_ok=True)
    (HOME / "codes").write_text("".join(f"{code}\n" for code in codes))
    program = HOME / "bin" / "spark-submit"
    program.write_text(
        f"""#!/bin/sh
echo '{{"rows": 5}}' > "$LODE_RESULT_FILE"
code=$(head -n 1 {HOME}/codes); sed -i 1d {HOME}/codes
[ "$code" = 137 ] && kill -9 $$
exit $code
"""
    )
    program.chmod(0o755)
    job = spark_job("events", "kafka_to_hdfs.py", ["events"], pool="hdfs", **arguments)
    return job.execute(CONTEXT)


def test_0_hands_on_the_result(alerts: list[str]) -> None:
    assert end([0]) == {"rows": 5, "exit_code": 0}
    assert alerts == []


@pytest.mark.parametrize("code", [2, 12, 13])
def test_what_no_other_try_can_help_fails_at_once(alerts: list[str], code: int) -> None:
    with pytest.raises(AirflowFailException, match=f"exit code {code}:"):
        end([code])


@pytest.mark.parametrize("code", [1, 137])
def test_a_failure_is_tried_again(alerts: list[str], code: int) -> None:
    with pytest.raises(AirflowException) as raised:
        end([code])
    assert not isinstance(raised.value, AirflowFailException)


def test_missing_data_is_a_success_with_an_alert(alerts: list[str]) -> None:
    assert end([10])["exit_code"] == 10
    assert alerts == ["warning"]


def test_missing_data_fails_where_that_is_set(alerts: list[str]) -> None:
    with pytest.raises(AirflowFailException, match="exit code 10:"):
        end([10], fail_when_data_missing=True)


def test_a_lost_race_is_run_once_more_for_what_the_other_left(alerts: list[str]) -> None:
    assert end([11, 0])["exit_code"] == 0
    assert end([11, 11])["exit_code"] == 11
    with pytest.raises(AirflowException, match="exit code 1:"):
        end([11, 1])


def test_a_missing_spark_submit_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    (HOME / "bin" / "spark-submit").unlink(missing_ok=True)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FileNotFoundError, match="spark-submit"):
        spark_job("events", "kafka_to_hdfs.py", ["events"], pool="hdfs").execute(CONTEXT)
