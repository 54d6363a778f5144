"""Roles of several nodes: a new one registers itself, and a job goes on when one of them dies in the middle."""

import logging
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from deployments import Deployment
from faults_common import assert_archived, inline, produce

from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import load_config
from pipeline_lib.datasets import events_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.io.spark import Session
from pipeline_lib.stack.stack import Stack
from pipeline_lib.topics import Topic

pytestmark = pytest.mark.slow

RECORDS, BATCH = 12_000, 3_000


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three Kafka nodes and a DataNode."""
    stack = Stack(tmp_path_factory.mktemp("nodes"))
    (stack.home / "stack.toml").write_text("[nodes]\nkafka = 3\n")
    try:
        stack.up(["kafka", "hdfs", "s3"])
        yield stack
    finally:
        stack.down()


@pytest.fixture
def mine(several: Stack, tmp_path: Path) -> Deployment:
    for name in ("topics", "analyses"):
        (tmp_path / name).mkdir()
    path = tmp_path / "lode.toml"
    path.write_text(
        f'stack = "{several.home}"\ntopics = "{tmp_path / "topics"}"\n[s3]\nbucket = "lode-nodes"\n'
        '[spark.properties]\n"spark.hadoop.dfs.replication" = "2"\n'
        '"spark.hadoop.dfs.client.block.write.replace-datanode-on-failure.policy" = "NEVER"\n'
    )
    deployment = Deployment(path, load_config(path))
    S3(deployment.config.s3).create_bucket()
    return deployment


def pids(stack: Stack) -> dict[str, int]:
    return {server.name: server.pid for server in stack.status() if server.state == "up" and server.pid}


def filled(deployment: Deployment, name: str) -> Topic:
    topic = deployment.declare(name)
    with Kafka(deployment.config.kafka) as kafka:
        kafka.create_topic(topic, 3)
        settings = kafka.topic_settings(topic)
    assert settings["min.insync.replicas"] == "2"
    produce(deployment.config, topic, RECORDS, partitions=3)
    return Topic(name=topic, codec="raw")


def test_a_broker_of_three_dies_while_a_topic_is_archived(
    mine: Deployment, several: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")
    topic = filled(mine, "brokers")
    with Kafka(mine.config.kafka) as kafka:
        leader = kafka.describe(topic.name).leaders[0]
    killed = []

    def and_kill(work: Any, units: Sequence[Any]) -> list[Any]:
        if not killed:
            killed.append("kafka" if leader == 1 else f"kafka-{leader}")
            several.kill(killed[0])
            produce(mine.config, topic.name, 300, partitions=3, start=RECORDS)  # it takes records, too
        return inline(work, list(units))

    report = archive_topic(mine.config, topic, Limits(max_records=BATCH), and_kill)
    assert report.rows["records"] >= RECORDS, "the same run went on to its end"
    several.up(["kafka"])
    archive_topic(mine.config, topic, Limits(), inline)
    with Kafka(mine.config.kafka) as kafka:
        assert sum(until for _, until in kafka.offsets(kafka.describe(topic.name)).values()) == RECORDS + 300
        assert_archived(mine.config, kafka, topic.name)


def live_datanodes(stack: Stack) -> int:
    query = {"qry": "Hadoop:service=NameNode,name=FSNamesystemState"}
    answer = requests.get(f"{stack.endpoints()['hdfs.web']}/jmx", params=query, timeout=5)
    return int(answer.json()["beans"][0]["NumLiveDataNodes"])


def test_a_new_datanode_registers_itself_and_one_may_die(
    mine: Deployment, several: Stack, spark: Session, tmp_path: Path
) -> None:
    before = pids(several)
    (several.home / "stack.toml").write_text("[nodes]\nkafka = 3\ndatanode = 2\n")
    several.up(["datanode"])
    assert before.items() <= pids(several).items(), "nothing else was started again"
    assert live_datanodes(several) == 2

    topic = filled(mine, "datanodes")
    with (tmp_path / "log").open("wb") as log:
        job = subprocess.Popen(mine.command("land", topic.name, "--max-records", str(BATCH)), stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while b"event=committed" not in (tmp_path / "log").read_bytes() and job.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    several.kill("datanode")
    assert job.wait(180) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_bytes().count(b"event=committed") == RECORDS // BATCH
    rows = spark.read.format("delta").load(events_path(mine.config.hdfs, topic.name)).collect()
    assert sorted((row["_partition"], row["_offset"]) for row in rows) == [
        (p, offset) for p in range(3) for offset in range(RECORDS // 3)
    ]


def test_a_wrong_stack_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.toml").write_text("[nodes]\nnamenode = 2\n")
    with pytest.raises(
        ConfigError, match=r"stack.toml: nodes.namenode: .* can be set of kafka, datanode, spark-worker"
    ):
        Stack(tmp_path).status()
