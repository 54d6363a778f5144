"""Lode's speed on 1,000,000 records of 1 KB in 4 partitions, on real servers on this machine.

Beside Lode stands, in the same run, what the client library alone can do: a confluent-kafka loop that drops what it
reads, and one that writes without transactions; and, with BENCH_OSO, the strongest peer (bench/peer.py). The broker
shares the machine's cores with all of them, so only figures of one run can be compared.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from rich.console import Console
from rich.table import Table

from bench import analysis, druid, hbase, hbase_diff
from bench.measure import Peak, spark_as_of
from bench.peer import backup, harness, restore
from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config, load_config
from pipeline_lib.generate.settings import TrafficSettings
from pipeline_lib.generate.traffic import generate
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_produce import Writer
from pipeline_lib.io.s3 import S3
from pipeline_lib.io.spark import session, spark_runner
from pipeline_lib.landing.run import land_topic
from pipeline_lib.replay.kafka import KafkaSink
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import Topic

RECORDS, SIZE, PARTITIONS = int(os.environ.get("BENCH_RECORDS", 1_000_000)), 1000, 4
TOPIC = Topic(name="bench", codec="raw")
WARM = Topic(name="bench-warm", codec="raw")
ALL = TimeSpan.parse("2001-01-01", "2099-01-01")


def measured(table: Table, name: str, work: Callable[[], Any], records: int = RECORDS, size: int = SIZE) -> Any:
    started = time.monotonic()
    with Peak() as peak:
        result = work()
    add_row(table, name, time.monotonic() - started, records, size, f"{peak.mb:,.0f}")
    return result


def add_row(table: Table, name: str, seconds: float, records: int, size: int, peak_mb: str = "") -> None:
    rate = f"{records / seconds:,.0f}"
    print(f"{name}: {seconds:.1f} s, {rate} records/s", file=sys.stderr)  # what was measured when something fails later
    table.add_row(name, f"{seconds:.1f}", rate, f"{records * size / 1e6 / seconds:.0f}", peak_mb)


def payload(number: int) -> bytes:
    """1 KB that compresses about threefold, as JSON events do."""
    return (b'{"id":%d,"noise":"' % number + os.urandom(SIZE // 6).hex().encode()).ljust(SIZE, b".")


def write_topic(config: Config, topic: Topic, records: int) -> None:
    writer, base = Writer(config.kafka), int(time.time() * 1000)
    values = [payload(i) for i in range(10_000)]
    for i in range(records):
        writer.write(topic.name, b"key-%d" % i, values[i % len(values)], base + i // 1000)
    writer.flush()


def drop_topic(config: Config) -> None:
    consumer = Consumer(
        {"bootstrap.servers": config.kafka.bootstrap_servers, "group.id": "bench", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(TOPIC.name, partition, 0) for partition in range(PARTITIONS)])
    seen = 0
    while seen < RECORDS:
        seen += len(consumer.consume(10_000, 10))
    consumer.close()


def generated() -> int:
    return sum(1 for _ in generate(TrafficSettings(visitors_per_day=4000, days=3)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LODE_STACK_HOME"] = folder
        lode = [sys.executable, "-m", "pipeline_lib", "stack"]
        try:
            subprocess.run([*lode, "up", "kafka", "hdfs", "s3", "hbase", "druid"], check=True, stdout=sys.stderr)
            config = load_config(Path("conf/local.toml"))
            topics = Path(folder) / "topics"
            topics.mkdir()
            run(config.model_copy(update={"topics": topics}), Path(folder))
        finally:
            subprocess.run([*lode, "down"], check=True)


def run(config: Config, folder: Path) -> None:
    console = Console()
    table = Table(
        title=f"{RECORDS:,} records of {SIZE} B, {PARTITIONS} partitions, {os.cpu_count()} cores with the servers"
    )
    for name in ("what", "s", "records/s", "MB/s", "peak MB"):
        table.add_column(name, justify="left" if name == "what" else "right")
    S3(config.s3).create_bucket()
    started = time.monotonic()
    count = generated()
    generate_rate = count / (time.monotonic() - started)
    with Kafka(config.kafka) as kafka:
        kafka.create_topic(TOPIC.name, PARTITIONS, {"retention.ms": "-1"})
        kafka.create_topic(WARM.name, PARTITIONS)
        kafka.create_topic("bench-copy", PARTITIONS, {"retention.ms": "-1"})
        kafka.create_topic("bench-peer", PARTITIONS, {"retention.ms": "-1"})
    write_topic(config, WARM, 1000)
    measured(table, "limit: confluent-kafka writes, no transactions", lambda: write_topic(config, TOPIC, RECORDS))
    measured(table, "limit: confluent-kafka reads and drops", lambda: drop_topic(config))
    spark_as_of(config, "kafka_to_s3.py")
    started = time.monotonic()
    spark = session("bench")
    session_seconds = time.monotonic() - started
    started = time.monotonic()
    archive_topic(config, WARM, Limits(), spark_runner("bench"))
    warm_seconds = time.monotonic() - started
    archived = measured(table, "archive", lambda: archive_topic(config, TOPIC, Limits(), spark_runner("bench")))
    landed = measured(table, "land (raw codec)", lambda: land_topic(config, TOPIC, Limits(), spark))
    request = ReplayRequest(TOPIC.name, ALL)
    sink = KafkaSink(config, spark_runner("bench"), "bench-copy")
    digest = plan(config, request, sink).id
    entry = measured(
        table,
        "replay to Kafka, with its verification",
        lambda: execute(config, request, sink, digest, skip_corrupt=False),
    )
    hbase.run(config, partial(measured, table), partial(add_row, table), console)
    hbase_diff.run(config, partial(measured, table), console)
    druid.run(config, console)
    analysis.run(folder, console)
    spark.stop()
    if peer := harness():
        measured(table, "peer: kafka-backup archives, zstd", lambda: backup(peer, config, TOPIC.name))
        measured(table, "peer: kafka-backup restores", lambda: restore(peer, config, TOPIC.name, "bench-peer"))
    console.print(table)
    console.print(f"generate: {generate_rate:,.0f} records/s in one process (about 3.2 events and 2.5 kB a record)")
    console.print(
        f"Spark's start, apart: session {session_seconds:.1f} s, first tasks (workers, compiled code) {warm_seconds:.1f} s"
    )
    console.print(f"stored: archive {archived.bytes / 1e6:,.0f} MB, landing {landed.bytes / 1e6:,.0f} MB")
    console.print(f"replay: {entry['status']}, {entry['records']:,} records, {entry['missing']} missing")


if __name__ == "__main__":
    main()
