"""What the fault tests share: producing a known set, reading it back, and jobs that are killed at a step."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Producer

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.config import Config
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.io.s3 import S3
from pipeline_lib.job import submit_command, submit_environment
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.records.offsets import OffsetRange

Row = dict[str, Any]


def inline(work: Callable[[Any], Any], units: list[Any]) -> list[Any]:
    """Runs units one after the other in this process, where a test needs no Spark."""
    return [work(unit) for unit in units]


def produce(
    config: Config,
    topic: str,
    records: int,
    partitions: int = 2,
    start: int = 0,
    size: int = 100,
    compression: str = "lz4",
) -> None:
    producer = Producer(
        {"bootstrap.servers": config.kafka.bootstrap_servers, "linger.ms": 20, "compression.type": compression}
    )
    for i in range(start, start + records):
        value = (b"%d " % i).ljust(size, b"x")
        producer.produce(topic, value=value, key=b"k%d" % i, partition=i % partitions, headers=[("n", b"%d" % i)])
        if i % 20_000 == 19_999:
            producer.flush()
    assert producer.flush(60) == 0


def in_kafka(kafka: Kafka, info: TopicInfo) -> dict[int, pa.Table]:
    """The committed records of each partition."""
    return {
        p: pa.Table.from_batches(list(kafka.read(info, OffsetRange(p, since, until), 1 << 20)), RAW_RECORD)
        for p, (since, until) in kafka.offsets(info).items()
    }


def in_archive(config: Config, cluster: str, topic: str) -> dict[tuple[str, int], pa.Table]:
    """The records of each archived topic id and partition, through the files that the table names and nothing else."""
    path = archive_path(cluster, topic)
    store, found = S3(config.s3), {}
    for file in sorted(ArchiveTable(config.s3, path).files()):
        topic_id, partition = (part.partition("=")[2] for part in file.split("/")[:2])
        table = pq.read_table(pa.BufferReader(store.get(f"{path}/{file}"))).select(RAW_RECORD.names)
        found.setdefault((topic_id, int(partition)), []).append(table)
    return {key: pa.concat_tables(tables).sort_by("offset") for key, tables in found.items()}


def assert_archived(config: Config, kafka: Kafka, topic: str) -> None:
    """The oracle: what Kafka holds is what the archive holds, nothing twice."""
    info = kafka.describe(topic)
    archived = in_archive(config, kafka.cluster_id(), topic)
    for partition, table in in_kafka(kafka, info).items():
        if table.num_rows:
            assert archived[info.topic_id, partition].equals(table), f"partition {partition}"


def start(config: Config, path: Path, script: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """A job under spark-submit in a process group of its own."""
    line = submit_command(config, script, [*arguments, "--config", str(path)])
    with log.open("wb") as out:
        return subprocess.Popen(line, env=submit_environment(config), stdout=out, stderr=out, start_new_session=True)


def kill(job: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the job, its JVM and its workers."""
    os.killpg(job.pid, signal.SIGKILL)
