"""A server that goes down half-way: nothing of what was not finished shows, and a plain re-run finishes it."""

import gc
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from deployments import Deployment
from fault_proxy import FaultProxy
from faults_common import assert_archived, in_archive, in_kafka, inline, produce

from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config, load_config
from pipeline_lib.errors import ServerUnavailable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.spark import Session, map_units
from pipeline_lib.replay.kafka import KafkaSink
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.stack.stack import Stack
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import Topic

ALL = TimeSpan.parse("2001-01-01", "2099-01-01")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A broker that may die."""
    stack = Stack(tmp_path_factory.mktemp("broker"))
    try:
        yield stack
    finally:
        stack.down()


@pytest.fixture
def mortal(deployment: Deployment, broker: Stack, caplog: pytest.LogCaptureFixture) -> Iterator[Deployment]:
    """A deployment on that broker, which is not waited for long, and small fetches."""
    caplog.set_level(logging.CRITICAL, "kafka")  # log records would keep the sockets of refused connections
    address = broker.up(["kafka"])["kafka.bootstrap"]
    path = deployment.path.with_name("mortal.toml")
    kafka = f'[kafka]\nbootstrap_servers = "{address}"\ntimeout_s = 3\n'
    bounds = "[batch]\nfetch_bytes = 65536\nsegment_bytes = 1048576\n"
    path.write_text(deployment.path.read_text().replace("[s3]", f"{kafka}{bounds}[s3]"))
    yield Deployment(path, load_config(path))
    gc.collect()  # those sockets, while their warning is ignored


def proxied(config: Config, proxy: FaultProxy) -> Config:
    return config.model_copy(update={"s3": config.s3.model_copy(update={"endpoint": f"http://{proxy.address}"})})


def s3_address(config: Config) -> str:
    return str(config.s3.endpoint).removeprefix("http://")


def test_a_broker_that_dies_while_it_is_archived(mortal: Deployment, broker: Stack, spark: Session) -> None:
    name = mortal.declare("dies")
    topic, config = Topic(name=name, codec="raw"), mortal.config
    with Kafka(config.kafka) as kafka:
        kafka.create_topic(name, 2)
        cluster = kafka.cluster_id()
    produce(config, name, 20_000, size=1000, compression="none")  # many fetches
    second_batch = rb"PUT [^ ]*partition(=|%3D)1/0{16}5000-"
    proxy = FaultProxy(s3_address(config), second_batch, lambda: broker.kill("kafka"), before=False)
    s3 = proxied(config, proxy).s3

    def watched(work, units):  # type: ignore[no-untyped-def]
        return map_units(spark, work, [replace(unit, s3=s3) for unit in units])

    with pytest.raises(ServerUnavailable, match=f"Kafka at {config.kafka.bootstrap_servers}: no progress") as failed:
        archive_topic(config, topic, Limits(max_records=10_000), watched)
    proxy.close()
    assert (proxy.fired.is_set(), failed.value.exit_code) == (True, 1)
    archived = in_archive(config, cluster, name)
    assert [table.num_rows for table in archived.values()] == [5000, 5000], "the first batch, and only that"
    broker.up(["kafka"])
    assert archive_topic(config, topic, Limits(), inline).rows["records"] == 10_000
    with Kafka(config.kafka) as kafka:
        assert_archived(config, kafka, name)


def test_a_broker_that_dies_before_the_last_commit_is_not_missed(mortal: Deployment, broker: Stack) -> None:
    name = mortal.declare("late")
    topic, config = Topic(name=name, codec="raw"), mortal.config
    with Kafka(config.kafka) as kafka:
        kafka.create_topic(name, 2)
    produce(config, name, 100)

    def then_dies(work, units):  # type: ignore[no-untyped-def]
        segments = inline(work, units)
        broker.kill("kafka")
        return segments

    report = archive_topic(config, topic, Limits(), then_dies)
    assert (report.batches, report.rows["records"]) == (1, 100), "what was committed is told, not a failure"
    broker.up(["kafka"])
    assert archive_topic(config, topic, Limits(), inline).batches == 0
    with Kafka(config.kafka) as kafka:
        assert_archived(config, kafka, name)


def test_s3_that_goes_down_while_it_is_archived(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("s3half")
    topic, config = Topic(name=name, codec="raw"), deployment.config
    kafka.create_topic(name, 2)
    produce(config, name, 1000)
    proxy = FaultProxy(s3_address(config), rb"PUT [^ ]*partition(=|%3D)1/", before=True)
    s3 = proxied(config, proxy).s3

    def cut(work, units):  # type: ignore[no-untyped-def]
        return inline(work, [replace(unit, s3=s3) for unit in units])

    with pytest.raises(ServerUnavailable, match=proxy.address) as failed:
        archive_topic(config, topic, Limits(), cut)
    assert (proxy.fired.is_set(), failed.value.exit_code) == (True, 1)
    assert in_archive(config, kafka.cluster_id(), name) == {}
    assert archive_topic(config, topic, Limits(), inline).rows["records"] == 1000
    assert_archived(config, kafka, name)


def test_s3_that_goes_down_while_it_is_replayed(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("s3replay")
    config = deployment.config
    for topic in (name, f"{name}-copy"):
        kafka.create_topic(topic, 2, {"retention.ms": "-1"})
    for since in (0, 1000):  # two segments a partition
        produce(config, name, 1000, start=since)
        archive_topic(config, Topic(name=name, codec="raw"), Limits(), inline)
    request, sink = ReplayRequest(name, ALL), KafkaSink(config, inline, f"{name}-copy")
    digest = plan(config, request, sink).id
    proxy = FaultProxy(s3_address(config), rb"GET [^ ]*partition(=|%3D)1/0{17}500-", before=True)
    with pytest.raises(ServerUnavailable, match=proxy.address):
        execute(config, request, replace(sink, config=proxied(config, proxy)), digest, False)
    assert proxy.fired.is_set()
    written = {partition: rows.num_rows for partition, rows in contents(kafka, f"{name}-copy").items()}
    assert written == {0: 1000, 1: 500}, "half of it was written"
    entry = execute(config, request, sink, digest, False)
    assert (entry["status"], entry["records"], entry["missing"], entry["foreign"]) == ("done", 2000, 0, 0)
    assert contents(kafka, f"{name}-copy") == contents(kafka, name)


def test_a_broker_that_dies_while_it_is_replayed_to(mortal: Deployment, broker: Stack) -> None:
    name = mortal.declare("target")
    config = mortal.config
    with Kafka(config.kafka) as kafka:
        for topic in (name, f"{name}-copy"):
            kafka.create_topic(topic, 1, {"retention.ms": "-1"})
        produce(config, name, 100_000, partitions=1)
        archive_topic(config, Topic(name=name, codec="raw"), Limits(), inline)
        request, sink = ReplayRequest(name, ALL), KafkaSink(config, inline, f"{name}-copy")
        digest = plan(config, request, sink).id
        killer = threading.Thread(target=kill_once_written, args=(broker, kafka, f"{name}-copy"))
        killer.start()
        with pytest.raises(ServerUnavailable, match=config.kafka.bootstrap_servers):
            execute(config, request, sink, digest, False)
        killer.join()
    broker.up(["kafka"])
    with Kafka(config.kafka) as kafka:
        written = [table.num_rows for table in in_kafka(kafka, kafka.describe(f"{name}-copy")).values()]
        assert 0 < sum(written) < 100_000, "half-way"
        entry = execute(config, request, sink, digest, False)
        assert (entry["status"], entry["records"], entry["missing"], entry["foreign"]) == ("done", 100_000, 0, 0)
        assert contents(kafka, f"{name}-copy") == contents(kafka, name)


def kill_once_written(broker: Stack, kafka: Kafka, topic: str) -> None:
    """Kills the broker after the first transaction, so most likely within a later one."""
    info, deadline = kafka.describe(topic), time.monotonic() + 60
    while not kafka.offsets(info)[0][1] and time.monotonic() < deadline:
        time.sleep(0.01)
    broker.kill("kafka")


def contents(kafka: Kafka, topic: str) -> dict[int, pa.Table]:
    """The committed records of each partition, without their offsets."""
    tables = in_kafka(kafka, kafka.describe(topic))
    return {partition: table.drop_columns(["offset"]) for partition, table in tables.items()}
