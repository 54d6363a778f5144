"""`lode compact` and `lode expire` on a real events table: fewer files and the same rows, and only the days that are over."""

import json

from deployments import Deployment
from job_records import JSON_TOPIC, START, event, produce

from pipeline_lib.batches.run import Limits
from pipeline_lib.datasets import events_path
from pipeline_lib.io.analysis_tables import EventsVersion
from pipeline_lib.io.delta_files import live_files
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.spark import Session
from pipeline_lib.landing.run import land_topic
from pipeline_lib.topics import load_topic

DAY_MS = 86_400_000


def land(deployment: Deployment, topic: str, spark: Session) -> None:
    land_topic(deployment.config, load_topic(deployment.config.topics, topic), Limits(), spark)


def landed(deployment: Deployment, kafka: Kafka, spark: Session, times: list[list[int]], toml: str = "") -> str:
    """A topic whose events of these times (ms) were landed, each list by a run of its own."""
    topic = deployment.declare("upkeep", toml + JSON_TOPIC)
    kafka.create_topic(topic, 1)
    for n, batch in enumerate(times):
        produce(deployment.config, topic, 0, [(event(f"{n}-{i}", at), START) for i, at in enumerate(batch)])
        land(deployment, topic, spark)
    return topic


def ids(spark: Session, table: str) -> list[str]:
    return sorted(row["id"] for row in spark.read.format("delta").load(table).collect())


def test_small_files_become_one_and_no_row_changes(deployment: Deployment, kafka: Kafka, spark: Session) -> None:
    topic = landed(deployment, kafka, spark, [[START, START + 1], [START + 2]])
    table = events_path(deployment.config.hdfs, topic)
    before, version = ids(spark, table), EventsVersion(spark, table)
    assert (len(before), len(live_files(table)[1])) == (3, 2)
    refused = deployment.lode("compact", topic, "--since", "2026-11-01", "--until", "2026-11-01T12:00", check=2)
    assert "inside a day" in refused.stderr
    done = deployment.lode("compact", topic, "--since", "2000-01-01", "--until", "2100-01-01", "--json")
    assert json.loads(done.stdout) == {"topic": topic, "files_before": 2, "files_after": 1}
    assert ids(spark, table) == before
    assert len(live_files(table)[1]) == 1
    assert EventsVersion(spark, table).touched_since(version.number) == set()
    produce(deployment.config, topic, 0, [(event("later", START + 3), START)])
    land(deployment, topic, spark)
    assert ids(spark, table) == sorted([*before, "later"])


def test_only_days_that_are_over_are_removed(deployment: Deployment, kafka: Kafka, spark: Session) -> None:
    times = [START - 40 * DAY_MS, START - 20 * DAY_MS, START]
    topic = landed(deployment, kafka, spark, [times], "keep_days = 30\n")
    table = events_path(deployment.config.hdfs, topic)
    counted = json.loads(deployment.lode("expire", topic, "--json").stdout)
    assert (counted["days"], counted["rows"], counted["removed"], len(ids(spark, table))) == (1, 1, False, 3)
    removed = json.loads(deployment.lode("expire", topic, "--execute", "--json").stdout)
    assert (removed["days"], removed["rows"], removed["removed"]) == (1, 1, True)
    assert ids(spark, table) == ["0-1", "0-2"]
    assert json.loads(deployment.lode("expire", topic, "--execute", "--json").stdout)["days"] == 0


def test_a_topic_without_keep_days_keeps_everything(deployment: Deployment) -> None:
    topic = deployment.declare("kept", JSON_TOPIC)
    assert "no keep_days" in deployment.lode("expire", topic, "--execute", "--json").stdout
