"""Logs with holes: compacted topics, aborted transactions and open ones. A run ends at the last stable offset."""

import time

import pytest
from confluent_kafka import Producer
from deployments import Deployment
from faults_common import assert_archived, in_archive, inline

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.progress import app_id
from pipeline_lib.batches.run import Limits, RunReport
from pipeline_lib.config import Config
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.topics import Topic

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0",
    "delete.retention.ms": "0",
}


def archive(config: Config, name: str) -> RunReport:
    """Archives in units of 50 offsets, so that some have nothing but a hole to read."""
    small = config.batch.model_copy(update={"unit_records": 50})
    return archive_topic(config.model_copy(update={"batch": small}), Topic(name=name, codec="raw"), Limits(), inline)


def producer(config: Config, transactional_id: str = "") -> Producer:
    options = {"bootstrap.servers": config.kafka.bootstrap_servers}
    if not transactional_id:
        return Producer(options)
    made = Producer({**options, "transactional.id": transactional_id})
    made.init_transactions(30)
    made.begin_transaction()
    return made


def send(made: Producer, name: str, values: range) -> None:
    for i in values:
        made.produce(name, key=str(i), value=b"%d" % i, partition=0)
    assert made.flush(30) == 0


def stable(kafka: Kafka, name: str) -> int:
    return kafka.offsets(kafka.describe(name))[0][1]


def wait_until_stable(kafka: Kafka, name: str, end: int) -> None:
    deadline = time.monotonic() + 30  # the end of a transaction is acknowledged before its marker is in the log
    while stable(kafka, name) < end:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_compacted(kafka: Kafka, name: str, span: OffsetRange) -> None:
    """Until the cleaner, which looks every second, leaves the log as it is: it removes what it can in several passes."""
    deadline = time.monotonic() + 90
    records, since = -1, time.monotonic()
    while records > 150 or time.monotonic() - since < 5:
        assert time.monotonic() < deadline, f"{records} records: never compacted"
        time.sleep(0.2)
        now = sum(batch.num_rows for batch in kafka.read(kafka.describe(name), span, 1 << 20))
        if now != records:
            records, since = now, time.monotonic()


def progress(config: Config, kafka: Kafka, name: str) -> int:
    table = ArchiveTable(config.s3, archive_path(kafka.cluster_id(), name))
    return table.progress({0: app_id(kafka.describe(name).topic_id, 0)})[0]


def values(config: Config, kafka: Kafka, name: str) -> list[int]:
    tables = in_archive(config, kafka.cluster_id(), name).values()
    return [int(value) for table in tables for value in table.column("value").to_pylist()]


@pytest.mark.parametrize("tail", ["a record", "an aborted transaction"])
def test_a_compacted_topic_is_archived_as_kafka_holds_it(tail: str, deployment: Deployment, kafka: Kafka) -> None:
    name, config = deployment.declare("compacted"), deployment.config
    kafka.create_topic(name, 1, COMPACTED)
    plain = producer(config)
    for turn in range(5):  # 500 records of 10 keys, in batches that go as a whole, and 5 records of their own
        for since in range(turn * 100, turn * 100 + 100, 10):
            for i in range(since, since + 10):
                plain.produce(name, key=str(i % 10), value=b"%d" % i, partition=0)
            assert plain.flush(30) == 0
        send(plain, name, range(1000 + turn, 1001 + turn))
        time.sleep(0.15)  # longer than segment.ms: the next record opens a segment
    end = 506
    if tail == "a record":
        send(plain, name, range(9999, 10000))
    else:
        made, end = producer(config, name), 509
        send(made, name, range(3))
        made.abort_transaction(30)
    wait_until_stable(kafka, name, end)
    wait_until_compacted(kafka, name, OffsetRange(0, 0, end))
    report = archive(config, name)
    assert (report.gaps, progress(config, kafka, name)) == ([], end)
    assert_archived(config, kafka, name)
    found = values(config, kafka, name)
    assert set(found) >= {*range(490, 500), *range(1000, 1005)}, "the last record of each key"
    assert len(found) == report.rows["records"] < 150
    assert archive(config, name).batches == 0


def test_a_log_that_ends_in_an_aborted_transaction_is_passed(deployment: Deployment, kafka: Kafka) -> None:
    name, config = deployment.declare("aborted"), deployment.config
    kafka.create_topic(name, 1)
    send(producer(config), name, range(10))
    assert archive(config, name).rows["records"] == 10
    for since in (10, 131):  # more than two units of nothing to read, twice
        made = producer(config, name)
        send(made, name, range(120))
        made.abort_transaction(30)
        wait_until_stable(kafka, name, since + 121)
        report = archive(config, name)
        assert (report.batches, report.rows["records"], progress(config, kafka, name)) == (1, 0, since + 121)
    assert archive(config, name).batches == 0
    assert_archived(config, kafka, name)


def test_an_open_transaction_is_waited_for_by_the_next_run(deployment: Deployment, kafka: Kafka) -> None:
    name, config = deployment.declare("open"), deployment.config
    kafka.create_topic(name, 1)
    plain = producer(config)
    send(plain, name, range(10))
    made = producer(config, name)
    send(made, name, range(10, 20))
    send(plain, name, range(20, 30))
    assert (archive(config, name).rows["records"], progress(config, kafka, name)) == (10, 10)
    assert archive(config, name).batches == 0
    made.commit_transaction(30)
    wait_until_stable(kafka, name, 31)
    assert (archive(config, name).rows["records"], progress(config, kafka, name)) == (20, 31)
    assert values(config, kafka, name) == list(range(30))
