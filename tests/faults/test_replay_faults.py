"""Replay to Kafka under faults: exactly once, in order, byte for byte, or nothing."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer
from deployments import Deployment
from faults_common import in_kafka, inline, kill, produce, start

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.errors import ConfigError, LostRace, TargetRefuses, VerificationFailed
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.replay.kafka import KafkaSink
from pipeline_lib.replay.plan import ReplayPlan, ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import Topic

ALL = TimeSpan(datetime(2001, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC))
DAY = timedelta(days=1)


def archived(deployment: Deployment, kafka: Kafka, records: int, partitions: int = 2) -> str:
    """A topic with records, archived."""
    name = deployment.declare("replay")
    kafka.create_topic(name, partitions, {"retention.ms": "-1"})
    produce(deployment.config, name, records, partitions)
    archive_topic(deployment.config, Topic(name=name, codec="raw"), Limits(), inline)
    return name


def empty_copy(kafka: Kafka, name: str, partitions: int = 2, **settings: str) -> str:
    copy = f"{name}-copy"
    kafka.create_topic(copy, partitions, {"retention.ms": "-1"} | {k.replace("_", "."): v for k, v in settings.items()})
    return copy


def contents(kafka: Kafka, topic: str) -> dict[int, list[dict[str, object]]]:
    tables = in_kafka(kafka, kafka.describe(topic))
    return {p: table.drop_columns(["offset"]).to_pylist() for p, table in tables.items()}


def planned(request: ReplayRequest, sink: KafkaSink) -> tuple[ReplayPlan, list[str]]:
    made = plan(sink.config, request, sink)
    return made, sink.problems(made)


def test_every_kind_of_record_comes_back_byte_for_byte(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("kinds")
    kafka.create_topic(name, 1, {"retention.ms": "-1", "max.message.bytes": "3000000"})
    options = {"bootstrap.servers": deployment.config.kafka.bootstrap_servers, "message.max.bytes": 3_000_000}
    producer = Producer({**options, "transactional.id": name})
    producer.init_transactions(30)
    kinds = [
        (b"k", b"v", []),
        (None, b"null key", []),
        (b"", b"empty key", []),
        (b"tombstone", None, []),
        (b"empty value", b"", []),
        (b"headers", b"v", [("a", b"1"), ("a", b"1"), ("b", None), ("c", b""), ("ü", bytes(range(256)))]),
        (b"large", bytes(1_000_000), []),
    ]
    for aborted in (True, False):
        producer.begin_transaction()
        for i, (key, value, headers) in enumerate(kinds):
            producer.produce(name, key=key, value=value, headers=headers, partition=0, timestamp=1_700_000_000_000 + i)
        producer.abort_transaction(30) if aborted else producer.commit_transaction(30)
    deadline = time.monotonic() + 30  # the commit is acknowledged before its marker is in the log
    while kafka.offsets(kafka.describe(name))[0][1] < len(kinds):
        assert time.monotonic() < deadline
    archive_topic(deployment.config, Topic(name=name, codec="raw"), Limits(), inline)
    copy = empty_copy(kafka, name, 1, max_message_bytes="3000000")
    request, sink = ReplayRequest(name, ALL), KafkaSink(deployment.config, inline, copy)
    plan, problems = planned(request, sink)
    assert (plan.most_records, problems) == (len(kinds), [])
    entry = execute(deployment.config, request, sink, plan.id, False)
    assert (entry["status"], entry["records"], entry["foreign"]) == ("done", len(kinds), 0)
    assert contents(kafka, copy) == contents(kafka, name)
    found = [(row["key"], row["value"]) for row in contents(kafka, copy)[0]]
    assert found == [(key, value) for key, value, _ in kinds]
    again = execute(deployment.config, request, sink, plan.id, False)
    assert again["finished"] == entry["finished"], "executed twice is one replay"
    assert len(contents(kafka, copy)[0]) == len(kinds)


def test_a_million_records_killed_and_resumed_are_equal_in_order(
    deployment: Deployment, kafka: Kafka, tmp_path: Path
) -> None:
    name = archived(deployment, kafka, 1_000_000, partitions=4)
    copy = empty_copy(kafka, name, 4)
    span = ["--since", "2001-01-01", "--until", "2099-01-01", "--to", copy]
    plan, _ = planned(ReplayRequest(name, ALL), KafkaSink(deployment.config, inline, copy))
    arguments = ["s3_to_kafka.py", name, *span, "--execute", plan.id]
    for kill_at in (1, 4):  # transactions: in the middle of the first partitions, then further on
        log = tmp_path / f"{kill_at}.log"
        job = start(deployment.config, deployment.path, *arguments, log=log)
        deadline = time.monotonic() + 120
        while log.read_text().count("event=progress") < kill_at:
            assert job.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        kill(job)
        job.wait(30)
    done = deployment.lode("replay", "kafka", *arguments[1:], "--json")
    result = json.loads(done.stdout)
    assert (result["status"], result["records"], result["missing"], result["foreign"]) == ("done", 1_000_000, 0, 0)
    original, copied = (in_kafka(kafka, kafka.describe(topic)) for topic in (name, copy))
    for partition, table in original.items():
        assert copied[partition].drop_columns(["offset"]).equals(table.drop_columns(["offset"]))


def test_two_runs_of_one_replay_write_each_record_once(deployment: Deployment, kafka: Kafka) -> None:
    name = archived(deployment, kafka, 3000)
    copy = empty_copy(kafka, name)
    request, sink = ReplayRequest(name, ALL), KafkaSink(deployment.config, inline, copy)
    plan, _ = planned(request, sink)

    def overtaken(work, units):  # type: ignore[no-untyped-def]
        execute(deployment.config, request, sink, plan.id, False)
        return inline(work, units)

    execute(deployment.config, request, replace(sink, run_units=overtaken), plan.id, False)
    assert contents(kafka, copy) == contents(kafka, name)


def test_a_fenced_writer_ends_with_11(deployment: Deployment, kafka: Kafka) -> None:
    from pipeline_lib.io.kafka_produce import TransactionalWriter

    name = deployment.declare("fenced")
    kafka.create_topic(name, 1)
    first = TransactionalWriter(deployment.config.kafka, f"lode.replay.{name}", name, 0)
    second = TransactionalWriter(deployment.config.kafka, f"lode.replay.{name}", name, 0)
    second.write([(b"k", b"second", [], 0)], 1)
    with pytest.raises(LostRace):
        first.write([(b"k", b"first", [], 0)], 1)
    assert [row["value"] for row in contents(kafka, name)[0]] == [b"second"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"retention.ms": "60000"}, "retention.ms=60000 is shorter"),
        ({"retention.bytes": "100"}, "retention.bytes=100 may be less"),
        ({"cleanup.policy": "compact"}, "cleanup.policy=compact"),
        ({"max.message.bytes": "100"}, "max.message.bytes=100 is too small"),
        ({"message.timestamp.type": "LogAppendTime"}, "LogAppendTime replaces"),
        ({"message.timestamp.before.max.ms": "60000"}, "message.timestamp.before.max.ms=60000 refuses"),
    ],
)
def test_a_target_that_would_lose_or_change_records_is_refused(
    settings: dict[str, str], says: str, deployment: Deployment, kafka: Kafka
) -> None:
    name = deployment.declare("preflight")
    kafka.create_topic(name, 1, {"retention.ms": "-1"})
    producer = Producer({"bootstrap.servers": deployment.config.kafka.bootstrap_servers})
    producer.produce(name, value=bytes(500), partition=0, timestamp=1_700_000_000_000)
    producer.flush(30)
    archive_topic(deployment.config, Topic(name=name, codec="raw"), Limits(), inline)
    target = f"{name}-target"
    kafka.create_topic(target, 1, {"retention.ms": "-1"} | settings)
    request, sink = ReplayRequest(name, ALL), KafkaSink(deployment.config, inline, target)
    plan, problems = planned(request, sink)
    assert len(problems) == 1
    assert says in problems[0]
    with pytest.raises(TargetRefuses, match=says.split("=")[0]) as refused:
        execute(deployment.config, request, sink, plan.id, False)
    assert refused.value.exit_code == 13
    assert contents(kafka, target) == {0: []}


def test_too_few_partitions_are_refused(deployment: Deployment, kafka: Kafka) -> None:
    name = archived(deployment, kafka, 10)
    sink = KafkaSink(deployment.config, inline, empty_copy(kafka, name, 1))
    _, problems = planned(ReplayRequest(name, ALL), sink)
    assert problems == [f"{name}-copy has no partition [1]: add partitions, or choose with --partition"]


def test_timestamps_now_keep_the_original_in_a_header(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("now")
    kafka.create_topic(name, 1, {"retention.ms": "-1"})
    producer = Producer({"bootstrap.servers": deployment.config.kafka.bootstrap_servers})
    producer.produce(name, value=b"old", partition=0, timestamp=1_000_000_000_000, headers=[("a", b"1")])
    producer.flush(30)
    archive_topic(deployment.config, Topic(name=name, codec="raw"), Limits(), inline)
    target = f"{name}-target"
    kafka.create_topic(target, 1, {"retention.ms": "3600000"})
    request, sink = ReplayRequest(name, ALL), KafkaSink(deployment.config, inline, target, timestamps="now")
    plan, problems = planned(request, sink)
    assert problems == []
    assert execute(deployment.config, request, sink, plan.id, False)["status"] == "done"
    (row,) = contents(kafka, target)[0]
    assert row["headers"] == [{"key": "a", "value": b"1"}, {"key": "lode.timestamp", "value": b"1000000000000"}]
    assert row["timestamp"] > datetime.now(UTC) - timedelta(minutes=5)  # type: ignore[operator]


def test_nothing_of_a_corrupt_segment_is_written(deployment: Deployment, kafka: Kafka) -> None:
    name = archived(deployment, kafka, 100)
    copy = empty_copy(kafka, name)
    path = archive_path(kafka.cluster_id(), name)
    store = S3(deployment.config.s3)
    key = f"{path}/{min(ArchiveTable(deployment.config.s3, path).files())}"
    data = bytearray(store.get(key) or b"")
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    request, sink = ReplayRequest(name, ALL), KafkaSink(deployment.config, inline, copy)
    plan, _ = planned(request, sink)
    with pytest.raises(VerificationFailed, match="corrupt"):
        execute(deployment.config, request, sink, plan.id, False)
    corrupt = next(segment.partition for segment in plan.segments if segment.path in key)
    assert contents(kafka, copy)[corrupt] == []
    entry = execute(deployment.config, request, sink, plan.id, True)
    assert (entry["status"], entry["records"], len(entry["corrupt"])) == ("done", 50, 1)
    assert contents(kafka, copy)[corrupt] == []
    assert contents(kafka, copy)[1 - corrupt] == contents(kafka, name)[1 - corrupt]


def test_late_records_are_found_by_event_time_in_any_segment(deployment: Deployment, kafka: Kafka) -> None:
    name = deployment.declare("late")
    json_topic = Topic.model_validate(
        {"name": name, "codec": "json", "event_time": {"field": "at"}, "fields": {"at": "bigint"}}
    )
    kafka.create_topic(name, 1, {"retention.ms": "-1"})
    producer = Producer({"bootstrap.servers": deployment.config.kafka.bootstrap_servers})
    day = datetime(2026, 11, 2, tzinfo=UTC)
    for hours in (30, 5, 50, 60):  # the one of the day stands between later ones, first and last are outside
        at = int((day + timedelta(hours=hours)).timestamp() * 1000)
        producer.produce(name, value=json.dumps({"at": at}).encode(), partition=0, timestamp=1_790_000_000_000)
    producer.flush(30)
    archive_topic(deployment.config, json_topic, Limits(), inline)
    copy = empty_copy(kafka, name, 1)
    request, sink = (
        ReplayRequest(name, TimeSpan(day, day + DAY), by="event_time"),
        KafkaSink(deployment.config, inline, copy),
    )
    plan, problems = planned(request, sink)
    assert (plan.exact, problems) == (False, [])
    assert execute(deployment.config, request, sink, plan.id, False)["records"] == 1
    assert len(contents(kafka, copy)[0]) == 1


def test_a_changed_plan_and_a_recreated_target_are_refused(deployment: Deployment, kafka: Kafka) -> None:
    name = archived(deployment, kafka, 10)
    copy = empty_copy(kafka, name)
    request, sink = ReplayRequest(name, ALL), KafkaSink(deployment.config, inline, copy)
    plan, _ = planned(request, sink)
    with pytest.raises(ConfigError, match="look at it again"):
        execute(deployment.config, replace(request, partitions=(0,)), sink, plan.id, False)

    def gone(work, units):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(deployment.config, request, replace(sink, run_units=gone), plan.id, False)
    kafka.delete_topic(copy)
    kafka.create_topic(copy, 2, {"retention.ms": "-1"})
    with pytest.raises(TargetRefuses, match="deleted and made again"):
        execute(deployment.config, request, sink, plan.id, False)
