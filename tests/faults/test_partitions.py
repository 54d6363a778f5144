"""The network between a job and a server is silent for a while: nothing answers, nothing is refused. The job waits and
goes on, or, beyond its time-out, fails clean and a plain re-run repairs. HBase: test_hbase_thrift_faults.py."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from deployments import Deployment
from fault_proxy import SilentProxy
from faults_common import assert_archived, inline, produce

from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config, load_config
from pipeline_lib.datasets import events_path
from pipeline_lib.errors import ServerUnavailable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.spark import Session
from pipeline_lib.stack.stack import Stack
from pipeline_lib.topics import Topic

RECORDS, BATCH = 4_000, 1_000


@contextmanager
def silent(stack: Stack, *names: str) -> Iterator[None]:
    """The servers are stopped (SIGSTOP), so that to their clients the network is cut: connections stay, answers do not
    come."""
    pids = [server.pid for server in stack.status() if server.name in names and server.pid]
    assert len(pids) == len(names)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def patient(config: Config, system: str, seconds: int) -> Config:
    """The deployment with another time-out for one system."""
    return config.model_copy(update={system: getattr(config, system).model_copy(update={"timeout_s": seconds})})


def filled(deployment: Deployment, kafka: Kafka, name: str) -> Topic:
    topic = deployment.declare(name)
    kafka.create_topic(topic, 2)
    produce(deployment.config, topic, RECORDS)
    return Topic(name=topic, codec="raw")


def test_kafka_is_silent_within_the_time_out(deployment: Deployment, kafka: Kafka, stack: Stack) -> None:
    topic = filled(deployment, kafka, "quiet")
    waits = []

    def cut_off(work: Any, units: Sequence[Any]) -> list[Any]:
        if waits:
            return inline(work, list(units))
        began, ended = time.monotonic(), threading.Event()

        def cut() -> None:
            with silent(stack, "kafka"):
                ended.wait(4)

        partition = threading.Thread(target=cut)
        partition.start()
        time.sleep(0.2)
        found = inline(work, list(units))
        waits.append(time.monotonic() - began)
        partition.join()
        return found

    report = archive_topic(patient(deployment.config, "kafka", 20), topic, Limits(max_records=BATCH), cut_off)
    assert report.rows["records"] == RECORDS
    assert 3.5 < waits[0] < 20, "it waited, and for no longer than needed"
    assert_archived(deployment.config, kafka, topic.name)


def test_kafka_is_silent_beyond_the_time_out(
    deployment: Deployment, kafka: Kafka, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")
    topic = filled(deployment, kafka, "cut")
    began = 0.0

    def cut_off(work: Any, units: Sequence[Any]) -> list[Any]:
        nonlocal began
        if not began:
            began = time.monotonic()
            return inline(work, list(units))
        with silent(stack, "kafka"):
            return inline(work, list(units))

    with pytest.raises(ServerUnavailable, match="Kafka at"):
        archive_topic(patient(deployment.config, "kafka", 2), topic, Limits(max_records=BATCH), cut_off)
    assert time.monotonic() - began < 30
    assert archive_topic(deployment.config, topic, Limits(), inline).rows["records"] == RECORDS - BATCH
    assert_archived(deployment.config, kafka, topic.name)


@pytest.mark.parametrize("seconds", [3, 1000])
def test_s3_is_silent(seconds: int, deployment: Deployment, kafka: Kafka) -> None:
    topic, config = filled(deployment, kafka, "s3quiet"), deployment.config
    second_batch = rb"PUT [^ ]*partition(=|%3D)1/0{16}0500-"
    proxy = SilentProxy(str(config.s3.endpoint).removeprefix("http://"), second_batch, seconds)
    # The tasks' side alone: delta-rs holds the interpreter's lock while it waits, and the proxy is in this process.
    s3 = config.s3.model_copy(update={"endpoint": f"http://{proxy.address}", "timeout_s": 2})

    def through(work: Any, units: Sequence[Any]) -> list[Any]:
        return inline(work, [replace(unit, s3=s3) for unit in units])

    if seconds < 1000:
        assert archive_topic(config, topic, Limits(max_records=BATCH), through).rows["records"] == RECORDS
    else:
        began = time.monotonic()
        with pytest.raises(ServerUnavailable, match="S3 at"):
            archive_topic(config, topic, Limits(max_records=BATCH), through)
        assert time.monotonic() - began < 60, "five tries of the time-out each, and the pauses between them"
    proxy.down()
    assert proxy.fired.is_set()
    archive_topic(config, topic, Limits(), inline)
    assert_archived(config, kafka, topic.name)


def landed_commits(stack: Stack, config: Config, topic: str) -> int:
    folder = events_path(config.hdfs, topic).removeprefix(config.hdfs.url)
    url = f"{stack.endpoints()['hdfs.web']}/webhdfs/v1{folder}/_delta_log"
    answer = requests.get(url, params={"op": "LISTSTATUS"}, timeout=5)
    statuses = answer.json()["FileStatuses"]["FileStatus"] if answer.ok else []
    return sum(status["pathSuffix"].endswith(".json") for status in statuses)


@pytest.mark.slow
@pytest.mark.parametrize("within", [True, False], ids=["within the time-out", "beyond the time-out"])
def test_hdfs_is_silent_while_a_topic_lands(
    within: bool, deployment: Deployment, kafka: Kafka, stack: Stack, spark: Session, tmp_path: Path
) -> None:
    timeout = 60_000 if within else 3_000
    names = ("ipc.client.rpc-timeout.ms", "dfs.client.socket-timeout", "dfs.datanode.socket.write.timeout")
    once = ("ipc.client.connect.max.retries.on.timeouts", "ipc.client.connect.max.retries")
    lines = [f'"spark.hadoop.{name}" = "{timeout}"' for name in names] + [f'"spark.hadoop.{n}" = "1"' for n in once]
    with deployment.path.open("a") as file:
        file.write("[spark.properties]\n" + "\n".join(lines) + "\n")
    mine = Deployment(deployment.path, load_config(deployment.path))
    topic = filled(mine, kafka, "hdfs")
    command = mine.command("land", topic.name, "--max-records", str(BATCH), "--json")
    with (tmp_path / "log").open("wb") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 240
    while landed_commits(stack, mine.config, topic.name) < 2 and job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with silent(stack, "namenode", "datanode"):
        if within:
            time.sleep(6)
            assert job.poll() is None
        else:
            assert job.wait(120) == 1, (tmp_path / "log").read_text()
    assert job.wait(120) == (0 if within else 1), (tmp_path / "log").read_text()
    mine.lode("land", topic.name)
    rows = spark.read.format("delta").load(events_path(mine.config.hdfs, topic.name)).collect()
    assert sorted((row["_partition"], row["_offset"]) for row in rows) == [
        (p, offset) for p in range(2) for offset in range(RECORDS // 2)
    ]
