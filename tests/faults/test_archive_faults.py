"""The archive under faults: after each, a plain re-run leaves exactly what Kafka holds."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from deployments import Deployment
from fault_proxy import FaultProxy
from faults_common import assert_archived, in_archive, inline, kill, produce, start

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import load_config
from pipeline_lib.errors import ConfigError, LodeError, LostRace, ServerUnavailable
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.topics import Topic

STEPS = {
    "before the first write": (rb"PUT [^ ]*\.parquet", True),
    "behind the first write": (rb"PUT [^ ]*\.parquet", False),
    "before the commit": (rb"PUT [^ ]*_delta_log/0+1\.json", True),
    "after the commit": (rb"PUT [^ ]*_delta_log/0+1\.json", False),
}


def with_lines(path: Path, name: str, lines: str) -> Path:
    other = path.with_name(name)
    other.write_text(path.read_text() + lines)
    return other


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_a_rerun_gives_the_exact_set(
    step: str, deployment: Deployment, kafka: Kafka, tmp_path: Path
) -> None:
    topic = deployment.declare("kill")
    kafka.create_topic(topic, 2)
    produce(deployment.config, topic, 5000)
    jobs: list[subprocess.Popen[bytes]] = []
    pattern, before = STEPS[step]
    upstream = str(deployment.config.s3.endpoint).removeprefix("http://")
    proxy = FaultProxy(upstream, pattern, lambda: kill(jobs[0]), before=before)
    path = with_lines(deployment.path, "proxied.toml", f'endpoint = "http://{proxy.address}"\n')
    jobs.append(start(load_config(path), path, "kafka_to_s3.py", topic, log=tmp_path / "job.log"))
    assert jobs[0].wait(90) == -9, (tmp_path / "job.log").read_text()
    assert proxy.fired.is_set()
    proxy.close()
    committed = bool(in_archive(deployment.config, kafka.cluster_id(), topic))
    assert committed == (step == "after the commit"), "visible exactly when it was committed"
    report = archive_topic(deployment.config, Topic(name=topic, codec="raw"), Limits(), inline)
    assert report.rows["records"] == (0 if committed else 5000)
    assert_archived(deployment.config, kafka, topic)


def test_two_at_once_one_commits_and_the_other_ends_with_11(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("race")
    topic = Topic(name=name, codec="raw")
    kafka.create_topic(name, 2)
    produce(deployment.config, name, 1000)

    def overtaken(work, units):  # type: ignore[no-untyped-def]
        segments = inline(work, units)
        assert archive_topic(deployment.config, topic, Limits(), inline).rows["records"] == 1000
        return segments

    with pytest.raises(LostRace) as lost:
        archive_topic(deployment.config, topic, Limits(), overtaken)
    assert lost.value.exit_code == 11
    assert_archived(deployment.config, kafka, name)


def test_a_gap_is_recorded_and_later_runs_go_on(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("gap")
    topic = Topic(name=name, codec="raw")
    kafka.create_topic(name, 1)
    produce(deployment.config, name, 100, partitions=1)
    archive_topic(deployment.config, topic, Limits(), inline)
    produce(deployment.config, name, 100, partitions=1, start=100)
    kafka.delete_records(name, {0: 150})
    with pytest.raises(LodeError, match=r"\[100, 150\)") as strict:
        archive_topic(deployment.config, topic, Limits(strict=True), inline)
    assert strict.value.exit_code == 1
    done = deployment.lode("archive", name, check=10)
    assert "[100, 150)" in done.stderr
    produce(deployment.config, name, 10, partitions=1, start=200)
    report = archive_topic(deployment.config, topic, Limits(), inline)
    assert (report.rows["records"], report.gaps) == (10, [])


def test_a_recreated_topic_is_another_and_added_partitions_are_read(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("again")
    topic = Topic(name=name, codec="raw")
    first = kafka.create_topic(name, 1)
    produce(deployment.config, name, 50, partitions=1)
    archive_topic(deployment.config, topic, Limits(), inline)
    kafka.delete_topic(name)
    second = kafka.create_topic(name, 1)
    produce(deployment.config, name, 20, partitions=1, start=1000)
    kafka.add_partitions(name, 3)
    produce(deployment.config, name, 30, partitions=3, start=2000)
    archive_topic(deployment.config, topic, Limits(), inline)
    archived = in_archive(deployment.config, kafka.cluster_id(), name)
    assert {key: table.num_rows for key, table in archived.items()} == {
        (first.topic_id, 0): 50,
        (second.topic_id, 0): 30,
        (second.topic_id, 1): 10,
        (second.topic_id, 2): 10,
    }


def test_limits_catch_up_batch_by_batch(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("limit")
    kafka.create_topic(name, 2)
    produce(deployment.config, name, 1000)
    report = archive_topic(deployment.config, Topic(name=name, codec="raw"), Limits(max_records=300), inline)
    assert (report.batches, report.rows["records"]) == (4, 1000)
    table = ArchiveTable(deployment.config.s3, archive_path(kafka.cluster_id(), name))
    assert len(table.commits()) == 4
    assert_archived(deployment.config, kafka, name)


def test_a_missing_topic_is_named(deployment: Deployment) -> None:
    name = deployment.declare("missing")
    with pytest.raises(ConfigError, match=f"topic '{name}' does not exist"):
        archive_topic(deployment.config, Topic(name=name, codec="raw"), Limits(), inline)


def test_a_broker_that_is_down_at_the_start_is_named(deployment: Deployment) -> None:
    name = deployment.declare("down")
    silent = '[kafka]\nbootstrap_servers = "127.0.0.1:1"\ntimeout_s = 3\n'
    path = deployment.path.with_name("down.toml")
    path.write_text(deployment.path.read_text() + silent)
    done = replace(deployment, path=path).lode("archive", name, check=1)
    assert "Kafka at 127.0.0.1:1" in done.stderr


def test_s3_down_leaves_nothing_and_a_rerun_repairs(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("s3down")
    topic = Topic(name=name, codec="raw")
    kafka.create_topic(name, 1)
    produce(deployment.config, name, 100, partitions=1)
    silent = deployment.config.s3.model_copy(update={"endpoint": "http://127.0.0.1:1", "timeout_s": 3})
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:1"):
        archive_topic(deployment.config.model_copy(update={"s3": silent}), topic, Limits(), inline)

    def s3_gone(work, units):  # type: ignore[no-untyped-def]
        return inline(work, [replace(unit, s3=silent) for unit in units])

    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:1"):
        archive_topic(deployment.config, topic, Limits(), s3_gone)
    assert in_archive(deployment.config, kafka.cluster_id(), name) == {}
    archive_topic(deployment.config, topic, Limits(), inline)
    assert_archived(deployment.config, kafka, name)
