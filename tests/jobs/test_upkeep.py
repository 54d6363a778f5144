"""`lode compact` and `lode expire` on a real events table: fewer files and the same rows, and only the days that are over."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from deployments import Deployment
from job_records import JSON_TOPIC, START, archive, event, here, produce

from pipeline_lib.analysis.declaration import load_analysis
from pipeline_lib.analysis.run import analyze
from pipeline_lib.batches.run import Limits
from pipeline_lib.datasets import events_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.analysis_tables import EventsVersion
from pipeline_lib.io.delta_files import live_files
from pipeline_lib.io.events_table import EventsTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.spark import Session
from pipeline_lib.landing.run import land_topic
from pipeline_lib.ledger.run import read_ledger
from pipeline_lib.topics import load_topic

DAY_MS = 86_400_000


def land(deployment: Deployment, topic: str, spark: Session) -> None:
    land_topic(deployment.config, load_topic(deployment.config.topics, topic), Limits(), spark)


def landed(
    deployment: Deployment, kafka: Kafka, spark: Session, runs: list[list[tuple[int, int]]], toml: str = ""
) -> str:
    """A topic whose events of these (event time, record's time), both ms, were landed, each list by a run of its own."""
    topic = deployment.declare("upkeep", toml + JSON_TOPIC)
    kafka.create_topic(topic, 1, {"retention.ms": "-1"})
    for n, run in enumerate(runs):
        produce(deployment.config, topic, 0, [(event(f"{n}-{i}", at), record) for i, (at, record) in enumerate(run)])
        land(deployment, topic, spark)
    return topic


def ids(spark: Session, table: str) -> list[str]:
    return sorted(row["id"] for row in spark.read.format("delta").load(table).collect())


def test_small_files_become_one_and_no_row_changes(deployment: Deployment, kafka: Kafka, spark: Session) -> None:
    topic = landed(deployment, kafka, spark, [[(START, START), (START + 1, START)], [(START + 2, START)]])
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


def test_only_days_that_are_over_are_removed_and_the_ledger_knows(
    deployment: Deployment, kafka: Kafka, spark: Session
) -> None:
    days = [(START - n * DAY_MS, START - n * DAY_MS) for n in (40, 20, 0)]
    late = (START - 40 * DAY_MS, START)  # came yesterday: yesterday's ledger has it
    topic = landed(deployment, kafka, spark, [[*days, late]], "keep_days = 30\n")
    archive(deployment.config, topic)
    table = events_path(deployment.config.hdfs, topic)

    def expire(*options: str) -> tuple[int, int, bool]:
        found = json.loads(deployment.lode("expire", topic, "--json", *options).stdout)
        return found["days"], found["rows"], found["removed"]

    def agree() -> list[str]:
        return [row.agrees for row in read_ledger(deployment.config, topic, None, None, spark, here).rows]

    assert (expire(), len(ids(spark, table)), live_files(table).expired_before) == ((1, 1, False), 4, None)
    assert agree() == ["yes", "yes", "yes"]
    assert expire("--execute") == (1, 1, True)
    before = datetime.now(UTC).date() - timedelta(days=30)
    assert live_files(table).expired_before == EventsVersion(spark, table).expired_before == before
    assert ids(spark, table) == ["0-1", "0-2", "0-3"]
    assert agree() == ["expired", "yes", "yes"]

    produce(deployment.config, topic, 0, [(event("again", days[0][0]), days[0][1])])
    land(deployment, topic, spark)
    events = EventsTable(spark, table)
    assert sum(events.rows_before(before).values()) == 1
    events.delete_before(before)  # on the same day: Delta knows the transaction already
    assert ids(spark, table) == ["0-1", "0-2", "0-3"]
    spark.sql(f"DELETE FROM delta.`{table}` WHERE id = '0-1'")  # not over, and gone
    archive(deployment.config, topic)
    assert agree() == ["expired", "no", "yes"]


def test_what_an_analysis_needs_is_neither_removed_nor_computed_without(
    deployment: Deployment, kafka: Kafka, spark: Session
) -> None:
    old = (START - 40 * DAY_MS, START - 40 * DAY_MS)
    topic = landed(deployment, kafka, spark, [[old, (START, START)]], "keep_days = 30\n")
    declare_analysis(deployment, topic)
    refused = deployment.lode("expire", topic, "--execute", check=2)
    assert "analysis upkeep reads the events of the last" in refused.stderr
    table = EventsTable(spark, events_path(deployment.config.hdfs, topic))
    assert len(ids(spark, table.path)) == 2

    table.delete_before(datetime.now(UTC).date() - timedelta(days=30))  # as if the analysis had been declared later
    day = datetime.fromtimestamp(START / 1000, UTC).date()
    analysis = load_analysis(deployment.config.analyses / "upkeep.toml")
    with pytest.raises(ConfigError, match="`lode expire` has removed those before"):
        analyze(deployment.config, "upkeep", analysis, [day], spark)


def declare_analysis(deployment: Deployment, topic: str) -> None:
    (deployment.config.analyses / "upkeep.toml").write_text(
        f"""topic = "{topic}"
[metrics.buys]
kind = "conversion"
event = "purchase"
[[experiments]]
id = "e"
since = 2020-01-01T00:00:00Z
control = "a"
variations = {{ a = {{ name = "a" }}, b = {{ name = "b" }} }}
metrics = ["buys"]
"""
    )


def test_a_topic_without_keep_days_keeps_everything(deployment: Deployment) -> None:
    topic = deployment.declare("kept", JSON_TOPIC)
    assert "no keep_days" in deployment.lode("expire", topic, "--execute", "--json").stdout
