"""Landing under faults: after each, a plain re-run leaves each record's events exactly once."""

import gzip
import json
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer
from deployments import Deployment
from fault_proxy import FaultProxy
from faults_common import kill, start

from pipeline_lib.batches.run import Limits
from pipeline_lib.config import load_config
from pipeline_lib.datasets import events_path
from pipeline_lib.errors import LodeError, LostRace
from pipeline_lib.io import spark as spark_io
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.spark import Session
from pipeline_lib.landing.run import land_topic
from pipeline_lib.topics import Topic

TOML = 'codec = "json"\nid_field = "id"\n[event_time]\nfield = "at"\n[fields]\nid = "bigint"\nat = "bigint"'
AT = 1_790_000_000_000
STEPS = {
    "before the first write": (rb"landing/.*part-", True),
    "while files are written": (rb"complete.{0,80}landing/.*part-", True),  # blocks on the DataNode, files still open
    "behind the last write": (rb"_delta_log/\.0+1\.json", True),
    "before the commit": (rb"\.tmp.{0,80}_delta_log/0+1\.json", True),
    "after the commit": (rb"\.tmp.{0,80}_delta_log/0+1\.json", False),
}


def declared(name: str) -> Topic:
    fields = {"id": "bigint", "at": "bigint"}
    return Topic.model_validate(
        {"name": name, "codec": "json", "id_field": "id", "event_time": {"field": "at"}, "fields": fields}
    )


def produce(deployment: Deployment, topic: str, numbers: range, partitions: int = 2) -> None:
    producer = Producer({"bootstrap.servers": deployment.config.kafka.bootstrap_servers, "linger.ms": 20})
    for i in numbers:
        value = b"broken" if i % 100 == 99 else json.dumps({"id": i, "at": AT + i * 60_000}).encode()
        producer.produce(topic, value=value, partition=i % partitions, timestamp=AT)
    assert producer.flush(60) == 0


def landed(spark: Session, deployment: Deployment, topic: str) -> list[tuple[str, int, int]]:
    rows = spark.read.format("delta").load(events_path(deployment.config.hdfs, topic))
    return sorted(
        (row.quality, row._partition, row._offset) for row in rows.select("quality", "_partition", "_offset").collect()
    )


def expected(numbers: range, partitions: int = 2) -> list[tuple[str, int, int]]:
    return sorted(("quarantined" if i % 100 == 99 else "ok", i % partitions, i // partitions) for i in numbers)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_a_rerun_gives_the_exact_set(
    step: str, deployment: Deployment, kafka: Kafka, spark: Session, tmp_path: Path
) -> None:
    topic = deployment.declare("kill", TOML)
    kafka.create_topic(topic, 2, {"retention.ms": "-1"})
    produce(deployment, topic, range(500))
    jobs: list[subprocess.Popen[bytes]] = []
    pattern, before = STEPS[step]
    proxy = FaultProxy(
        deployment.config.hdfs.url.removeprefix("hdfs://"), pattern, lambda: kill(jobs[0]), before=before
    )
    path = deployment.path.with_name("proxied.toml")
    path.write_text(deployment.path.read_text() + f'[hdfs]\nurl = "hdfs://{proxy.address}"\n')
    jobs.append(start(load_config(path), path, "kafka_to_hdfs.py", topic, log=tmp_path / "job.log"))
    assert jobs[0].wait(120) == -9, (tmp_path / "job.log").read_text()
    proxy.close()
    report = land_topic(deployment.config, declared(topic), Limits(), spark)
    assert report.batches == (0 if step == "after the commit" else 1)
    assert landed(spark, deployment, topic) == expected(range(500))


def test_two_at_once_one_commits_and_the_other_ends_with_11(
    deployment: Deployment, kafka: Kafka, spark: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = deployment.declare("race", TOML)
    kafka.create_topic(topic, 2, {"retention.ms": "-1"})
    produce(deployment, topic, range(200))
    commit = spark_io.DeltaTarget.commit

    def overtaken(self, *arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(spark_io.DeltaTarget, "commit", commit)
        land_topic(deployment.config, declared(topic), Limits(), spark)
        return commit(self, *arguments)

    monkeypatch.setattr(spark_io.DeltaTarget, "commit", overtaken)
    with pytest.raises(LostRace) as lost:
        land_topic(deployment.config, declared(topic), Limits(), spark)
    assert lost.value.exit_code == 11
    assert landed(spark, deployment, topic) == expected(range(200))


def test_gaps_added_partitions_and_recreated_topics(deployment: Deployment, kafka: Kafka, spark: Session) -> None:
    name = deployment.declare("gap", TOML)
    topic = declared(name)
    kafka.create_topic(name, 1, {"retention.ms": "-1"})
    produce(deployment, name, range(50), 1)
    kafka.delete_records(name, {0: 10})
    with pytest.raises(LodeError, match=r"\[0, 10\)"):
        land_topic(deployment.config, topic, Limits(strict=True), spark)
    report = land_topic(deployment.config, topic, Limits(), spark)
    assert [(gap.since, gap.until) for gap in report.gaps] == [(0, 10)]
    kafka.delete_topic(name)
    second = kafka.create_topic(name, 2, {"retention.ms": "-1"})
    produce(deployment, name, range(20))
    assert land_topic(deployment.config, topic, Limits(), spark).topic_id == second.topic_id
    assert landed(spark, deployment, name) == sorted(expected(range(50), 1)[10:] + expected(range(20)))


def test_progress_outlives_log_clean_up(deployment: Deployment, kafka: Kafka, spark: Session) -> None:
    name = deployment.declare("year", TOML)
    kafka.create_topic(name, 2, {"retention.ms": "-1"})
    produce(deployment, name, range(100))
    land_topic(deployment.config, declared(name), Limits(), spark)
    path = events_path(deployment.config.hdfs, name)
    table = f"delta.`{path}`"
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.checkpointInterval' = '2')")
    for _ in range(3):
        spark.sql(f"OPTIMIZE {table}")
        spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('year' = '{_}')")
    folder = spark._jvm.org.apache.hadoop.fs.Path(f"{path}/_delta_log")  # type: ignore[union-attr]
    files = folder.getFileSystem(spark._jsc.hadoopConfiguration())
    names = sorted(status.getPath().getName() for status in files.listStatus(folder))
    newest = max(name.split(".")[0] for name in names if ".checkpoint" in name)
    for old in (name for name in names if name.endswith(".json") and name.split(".")[0] < newest):
        assert files.delete(spark._jvm.org.apache.hadoop.fs.Path(folder, old), False)  # type: ignore[union-attr]
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
    produce(deployment, name, range(100, 150))
    assert land_topic(deployment.config, declared(name), Limits(), spark).rows["events"] == 50
    assert landed(spark, deployment, name) == expected(range(150))


@pytest.mark.parametrize(
    ("file", "rows"), [("collector_batches", (48_648, 0)), ("collector_batches_dirty", (51_016, 4))]
)
def test_the_published_events_land_whole(
    file: str, rows: tuple[int, int], deployment: Deployment, kafka: Kafka, spark: Session, e3: Path
) -> None:
    name = deployment.declare("e3", 'codec = "optimizely-event-batch"')
    kafka.create_topic(name, 4, {"retention.ms": "-1"})
    producer = Producer({"bootstrap.servers": deployment.config.kafka.bootstrap_servers, "linger.ms": 20})
    lines = gzip.decompress((e3 / f"{file}.jsonl.gz").read_bytes()).splitlines()
    for number, line in enumerate(lines):
        producer.produce(name, value=line, partition=number % 4)
        producer.poll(0)
    assert producer.flush(60) == 0
    report = land_topic(deployment.config, Topic(name=name, codec="optimizely-event-batch"), Limits(), spark)
    assert (report.rows["events"], report.rows["quarantined"]) == rows
    table = spark.read.format("delta").load(events_path(deployment.config.hdfs, name))
    events = table.where("quality = 'ok'").dropDuplicates(["uuid"]).groupBy("event_type").count().collect()
    bots = 20 if rows[1] else 0
    assert {row["event_type"]: row["count"] for row in events} == {"decision": 10_000 + bots, "conversion": 38_648}
    reasons = [row._reason for row in table.where("quality = 'quarantined'").collect()]
    assert len(reasons) == rows[1]
    assert all(reasons)
