"""What every DAG shares: how a task is retried, limited and reported, and spark_job, the one way to run a job."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronPartitionTimetable, DeadlineAlert, DeadlineReference, SyncCallback

from airflow_dags.alerts import RUNBOOK, on_deadline, on_task_failure
from airflow_dags.spark_submit import ROOT, LodeJobOperator

SPARK = "spark_lode"
"""The connection that `lode airflow connection` prints."""

HOURLY = CronPartitionTimetable("0 * * * *", timezone="UTC", run_offset=-1)
"""The run of 21:00 is of the hour from 20:00 to 21:00, whose partition key is 20:00."""
END_OF_HOUR = "{{ (macros.datetime.fromisoformat(partition_key) + macros.timedelta(hours=1)).isoformat() }}"
DAY, NEXT_DAY = "{{ partition_key[:10] }}", "{{ macros.ds_add(partition_key[:10], 1) }}"

DEFAULT_ARGS = {
    "owner": "lode",
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(hours=2),
    "on_failure_callback": on_task_failure,
}


def lode_dag(dag_id: str, doc: str, *, schedule: Any, late_after: timedelta, **arguments: Any) -> DAG:
    """A DAG with the defaults of all; whoever is paged finds in its text what it does and where the runbook is.

    Args:
        late_after: from queueing a run until people are told that it is late.
    """
    return DAG(
        dag_id,
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        default_args=DEFAULT_ARGS,
        tags=["lode"],
        doc_md=f"{doc}\n\n**When it fails**: [{RUNBOOK}]({RUNBOOK}), by exit code.",
        deadline=DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, late_after, SyncCallback(on_deadline)),
        **arguments,
    )


def spark_job(task_id: str, script: str, words: Any, *, pool: str, **arguments: Any) -> LodeJobOperator:
    """A job of jobs/ with these words and `--json`, as `lode ... --print-command` would start it.

    Args:
        words: a list, or the result of a task that is one.
        pool: the external system that bears the load: kafka, hdfs, s3, hbase or druid.
    """
    return LodeJobOperator(
        task_id=task_id,
        application=str(ROOT / "jobs" / script),
        application_args=words,
        name=f"lode.{{{{ dag.dag_id }}}}.{task_id}",
        conn_id=SPARK,
        pool=pool,
        durable=False,  # of what was submitted only cluster mode outlives the task, and the commit lets one run through
        **{"doc_md": f"Runs `jobs/{script}`; `{RUNBOOK}` says what its exit code asks for.", **arguments},
    )


def follow_kafka(topic: str, script: str, **arguments: Any) -> LodeJobOperator:
    """A job that brings a topic's records up to the end of the run's hour. It goes on from its last commit, so that
    one run at a time is enough, and an hour that was done before costs a look."""
    return spark_job(topic, script, [topic, "--until", END_OF_HOUR], max_active_tis_per_dag=1, **arguments)
