"""S3 -> HBase or Kafka, by hand: a span of a topic's archive is planned, approved by a person, carried out and verified.

A dry run ends after the plan. Otherwise a person sees counts and digest, and what is executed is the plan with that
digest or nothing. Replays are carried out and verified one at a time; one that waits for a person holds up no other.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_dags.assets import TOPICS
from airflow_dags.common import lode_dag, spark_job

PARAMS = {
    "topic": Param(type="string", enum=list(TOPICS), description="Whose archive."),
    "since": Param(type="string", format="date-time", description="Start of the span (inclusive), UTC."),
    "until": Param(type="string", format="date-time", description="End of the span (exclusive), UTC."),
    "sink": Param("hbase", type="string", enum=["hbase", "kafka"], description="Where the records go."),
    "cluster": Param("both", type="string", enum=["both", "prod", "loki"], description="Of HBase; Kafka has one."),
    "dry_run": Param(True, type="boolean", title="dry run", description="Only plan."),
}
REPLAY = "s3_to_{{ params.sink }}.py"
VERIFY = "{{ 'hbase_diff.py' if params.sink == 'hbase' else 's3_to_kafka.py' }}"
VALUE = "{% set it = ti.xcom_pull(task_ids='plan')['NAME'] %}{{ '{:,}'.format(it) if it is integer else it }}"
SHOWN = ("digest", "span", "target", "partitions", "segments", "records", "bytes in the archive", "warnings")


def _time(name: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise AirflowFailException(f"{name} {text!r} is not a time like 2026-11-02T00:00:00Z") from None
    return time.replace(tzinfo=time.tzinfo or UTC)


@task(retries=0, doc_md="Checks what the form cannot: since before until, and a cluster that the sink has.")
def check(params: dict[str, Any]) -> list[str]:
    since, until = (_time(name, params[name]) for name in ("since", "until"))
    if since >= until:
        raise AirflowFailException(f"since {since.isoformat()} is not before until {until.isoformat()}: swap them")
    if params["sink"] == "kafka" and params["cluster"] != "both":
        raise AirflowFailException(f"cluster {params['cluster']} is one of HBase: choose sink hbase, or cluster both")
    cluster = [] if params["cluster"] == "both" else ["--cluster", params["cluster"]]
    by = ["--by", "event_time"] if params["sink"] == "hbase" else []  # as a table's rows, and `verify`, have it
    return [params["topic"], "--since", since.isoformat(), "--until", until.isoformat(), *cluster, *by]


@task.short_circuit(retries=0, doc_md="A dry run ends here; its plan is the result of the task before.")
def wanted(params: dict[str, Any]) -> bool:
    return not params["dry_run"]


@task(multiple_outputs=True, retries=0, doc_md="The commands of what was approved: the digest goes into them.")
def approved(words: list[str], planned: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A replay to Kafka that is done, run again, tells how it ended; HBase is compared with the archive."""
    execute = [*words, "--execute", planned["digest"]]
    right = "prod" if params["cluster"] == "both" else params["cluster"]
    diff = [*words[:5], "--left", "archive", "--right", right]
    return {"execute": execute, "verify": execute if params["sink"] == "kafka" else diff}


with lode_dag("replay", str(__doc__), schedule=None, late_after=timedelta(days=2), params=PARAMS):
    words = check()
    plan = spark_job("plan", REPLAY, words, pool="s3")
    approve = ApprovalOperator(
        task_id="approve",
        subject="Replay {{ params.topic }} to {{ params.sink }}, plan {{ ti.xcom_pull(task_ids='plan')['digest'] }}",
        body="\n".join(f"- {name}: {VALUE.replace('NAME', name)}" for name in SHOWN),
        response_timeout=timedelta(days=1),
        retries=0,
        doc_md="A person approves this very plan, or rejects it.",
    )
    commands = approved(words, plan.output)
    alone = {"pool": "hbase", "max_active_tis_per_dag": 1}
    execute = spark_job("execute", REPLAY, commands["execute"], fail_when_data_missing=True, **alone)
    verify = spark_job("verify", VERIFY, commands["verify"], **alone)
    plan >> wanted() >> approve >> commands >> execute >> verify
