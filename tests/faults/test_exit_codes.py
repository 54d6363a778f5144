"""What the command tells a scheduler and a person, through the real `lode`."""

import json

import pytest
from deployments import Deployment
from faults_common import inline, produce

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.replay.kafka import KafkaSink
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import plan
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import Topic


def test_a_corrupt_segment_ends_with_12_and_skipped_with_10(deployment: Deployment, kafka: Kafka) -> None:
    name, config = deployment.declare("corrupt"), deployment.config
    for topic in (name, f"{name}-copy"):
        kafka.create_topic(topic, 2, {"retention.ms": "-1"})
    produce(config, name, 100)
    archive_topic(config, Topic(name=name, codec="raw"), Limits(), inline)
    path, store = archive_path(kafka.cluster_id(), name), S3(config.s3)
    segment = min(ArchiveTable(config.s3, path).files())
    data = bytearray(store.get(f"{path}/{segment}") or b"")
    data[len(data) // 2] ^= 1
    store.put(f"{path}/{segment}", bytes(data))
    request = ReplayRequest(name, TimeSpan.parse("2001-01-01", "2099-01-01"))
    digest = plan(config, request, KafkaSink(config, inline, f"{name}-copy")).id
    span = ["--since", "2001-01-01", "--until", "2099-01-01", "--to", f"{name}-copy"]
    command = ["replay", "kafka", name, *span, "--execute", digest]
    assert f"segment {segment} is corrupt" in deployment.lode(*command, check=12).stderr
    skipped = deployment.lode(*command, "--skip-corrupt", "--json", check=10)
    assert f"corrupt segments were left out: {segment}" in skipped.stderr
    assert json.loads(skipped.stdout)["corrupt"] == [segment]


def test_a_wrong_s3_secret_is_named_and_not_shown(
    deployment: Deployment, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, secret = deployment.declare("secret"), "notTheSecret0123456789"
    kafka.create_topic(name, 1)
    monkeypatch.setenv("LODE_S3_SECRET_KEY", secret)
    done = deployment.lode("archive", name, check=2)
    said = done.stdout + done.stderr
    assert "SignatureDoesNotMatch" in said
    assert f"S3 at {deployment.config.s3.endpoint}" in said
    assert secret not in said
    assert deployment.config.s3.secret_key.get_secret_value() not in said
