"""The reader against a real broker: record for record what librdkafka's consumer sees, read_committed."""

import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message, Producer, TopicPartition
from kafka import errors as kafka_errors

from pipeline_lib.errors import ConfigError, LodeError, ServerUnavailable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import Fetcher, TopicInfo
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.records.offsets import OffsetRange

Row = tuple[object, ...]
Headers = list[tuple[str, str | bytes | None]]

FETCH = 8 << 20
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
ODD_HEADERS: list[Headers] = [
    [],
    [("a", b"1")],
    [("b", b"2"), ("a", b""), ("b", None), ("b", b"2"), ("", b"empty key")],
    [("ключ", bytes(range(256)))],
]


@contextmanager
def topic_of(kafka: Kafka, **settings: str) -> Iterator[TopicInfo]:
    wanted = {name.replace("_", "."): value for name, value in settings.items()}
    # The records are old: without this the broker's next look at retention, every five minutes, deletes them.
    yield kafka.create_topic(f"reader-{uuid.uuid4().hex[:10]}", 1, {"retention.ms": "-1"} | wanted)


def producer(kafka: Kafka, codec: str = "none", transactional: bool = False, batch: int = 10_000) -> Producer:
    values: dict[str, object] = {
        "bootstrap.servers": kafka.settings.bootstrap_servers,
        "compression.type": codec,
        "message.max.bytes": 3_000_000,
        "linger.ms": 5,
        "batch.num.messages": batch,
    }
    if transactional:
        values["transactional.id"] = f"reader-{uuid.uuid4().hex}"
    made = Producer(values)
    if transactional:
        made.init_transactions(30)
    return made


def send(made: Producer, topic: str, seed: int, many: int) -> None:
    """Records of every kind: null and empty keys and values, tombstones, odd headers, old and odd times."""
    rng = random.Random(seed)
    for _ in range(many):
        made.produce(
            topic,
            key=rng.choice([None, b"", b"key", rng.randbytes(30)]),
            value=rng.choice([None, b"", b"value" * 50, rng.randbytes(rng.randrange(300))]),
            headers=rng.choice(ODD_HEADERS),
            timestamp=rng.choice([1, 946_684_800_000, int(time.time() * 1000) - rng.randrange(10**9)]),
        )
        made.poll(0)
    made.flush(30)


def oracle(kafka: Kafka, topic: str) -> list[Row]:
    """What a consumer with read_committed sees until it meets the last stable offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.settings.bootstrap_servers,
            "group.id": f"oracle-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[Row] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for message in consumer.consume(1000, 0.1):
                error = message.error()
                if error is None:
                    found.append(as_row(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    return found
                else:
                    raise AssertionError(error)
        raise AssertionError("the oracle did not reach the end")
    finally:
        consumer.close()


def as_row(message: Message) -> Row:
    kind, moment = message.timestamp()
    headers = tuple(message.headers() or ())
    kind = int(kind == TIMESTAMP_LOG_APPEND_TIME)
    return message.offset(), moment, kind, message.key(), message.value(), headers


def rows(batches: Sequence[pa.RecordBatch]) -> list[Row]:
    found: list[Row] = []
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(RAW_RECORD)
        columns = [batch.column(name) for name in RAW_RECORD.names]
        columns[1] = columns[1].cast(pa.int64())
        for *scalars, headers in zip(*(column.to_pylist() for column in columns), strict=True):
            found.append((*scalars, tuple((pair["key"], pair["value"]) for pair in headers)))
    return found


def read(kafka: Kafka, info: TopicInfo, since: int, until: int, fetch_bytes: int = FETCH) -> list[Row]:
    return rows(list(kafka.read(info, OffsetRange(0, since, until), fetch_bytes)))


def read_all(kafka: Kafka, info: TopicInfo, fetch_bytes: int = FETCH) -> list[Row]:
    return read(kafka, info, *kafka.offsets(info)[0], fetch_bytes)


def settled(kafka: Kafka, info: TopicInfo) -> int:
    """The last stable offset once it has stood still for a second: a broker acknowledges the end of a transaction
    before its marker is in the log."""
    end, since = kafka.offsets(info)[0][1], time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        if (now := kafka.offsets(info)[0][1]) != end:
            end, since = now, time.monotonic()
    return end


@pytest.mark.parametrize("time_type", ["CreateTime", "LogAppendTime"])
@pytest.mark.parametrize("codec", CODECS)
def test_the_reader_agrees_with_librdkafka(kafka: Kafka, codec: str, time_type: str) -> None:
    with topic_of(kafka, message_timestamp_type=time_type, max_message_bytes="3000000") as info:
        plain = producer(kafka, codec, batch=50)
        one, two, last = (producer(kafka, codec, transactional=True) for _ in range(3))
        send(plain, info.name, 1, 300)
        one.begin_transaction()
        two.begin_transaction()
        for seed in range(10, 13):  # two transactions and a plain producer take turns
            send(one, info.name, seed, 7)
            send(two, info.name, seed + 100, 5)
            send(plain, info.name, seed + 200, 3)
        two.abort_transaction(30)
        one.commit_transaction(30)
        plain.produce(info.name, key=b"big", value=os.urandom(1 << 20), headers=[("big", os.urandom(1 << 10))])
        plain.produce(info.name, key=b"big", value=b"z" * (1 << 20))
        plain.flush(30)
        two.begin_transaction()
        send(two, info.name, 3, 20)
        two.abort_transaction(30)
        last.begin_transaction()
        send(last, info.name, 4, 20)
        send(plain, info.name, 5, 20)  # behind an open transaction: not stable yet

        stable = settled(kafka, info)
        expected = oracle(kafka, info.name)
        found = read_all(kafka, info)
        assert found == expected
        assert 0 < len(found) < stable  # what was aborted, and the markers, are left out
        values = {row[4] for row in found} | {row[3] for row in found}
        assert {None, b"", b"big"} <= values
        assert {row[2] for row in found} == {int(time_type == "LogAppendTime")}
        assert [header[0] for row in found for header in row[5] if len(row[5]) == 5][:5] == ["b", "a", "b", "b", ""]  # type: ignore[attr-defined,arg-type]

        rng = random.Random(codec)
        for size in (1, 1 << 16, FETCH):  # the first is smaller than any batch
            since, until = sorted(rng.sample(range(stable + 1), 2))
            part = read(kafka, info, since, until, size)
            assert part == [row for row in expected if since <= int(str(row[0])) < until]

        last.abort_transaction(30)
        settled(kafka, info)
        began = time.monotonic()
        assert read_all(kafka, info) == oracle(kafka, info.name)
        last.begin_transaction()
        send(last, info.name, 6, 5)
        last.abort_transaction(30)  # the log ends in an aborted tail and its marker
        settled(kafka, info)
        found = read_all(kafka, info)
        assert found == oracle(kafka, info.name)
        assert int(str(found[-1][0])) < kafka.offsets(info)[0][1] - 5
        assert time.monotonic() - began < 30


def test_ranges_of_nothing_visible_end(kafka: Kafka) -> None:
    with topic_of(kafka) as info:
        made = producer(kafka, transactional=True)
        for _ in range(3):
            made.begin_transaction()
            send(made, info.name, 1, 10)
            made.abort_transaction(30)
        end = settled(kafka, info)
        assert end == 33
        began = time.monotonic()
        assert read_all(kafka, info) == []
        assert read(kafka, info, end - 1, end) == []  # the marker alone
        assert read(kafka, info, 5, 5) == []
        assert time.monotonic() - began < 5


def test_a_compacted_topic_with_tombstones(kafka: Kafka) -> None:
    settings = {
        "cleanup_policy": "compact",
        "segment_ms": "100",
        "min_cleanable_dirty_ratio": "0",
        "min_compaction_lag_ms": "0",
    }
    with topic_of(kafka, **settings) as info:
        made = producer(kafka, "zstd")
        for turn in range(4):
            for key in range(50):
                made.produce(info.name, key=b"k%d" % key, value=None if turn == 2 and key % 5 == 0 else b"v%d" % turn)
                if key % 10 == 9:
                    made.flush(30)
            if turn == 2:
                time.sleep(0.3)
                for _ in range(2):
                    made.produce(info.name, key=b"roll", value=b"")
                    made.flush(30)
                    time.sleep(0.2)
                break
        deadline = time.monotonic() + 60
        while len(found := read_all(kafka, info)) > 60 and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(1)
        found = read_all(kafka, info)
        assert found == oracle(kafka, info.name)
        assert 50 <= len(found) <= 60
        assert sum(row[4] is None for row in found) == 10
        offsets = [int(str(row[0])) for row in found]
        assert offsets[0] >= 100  # the first two turns are gone: the log begins with a hole
        for since in (0, 7, 95, 101, 149):
            assert read(kafka, info, since, 150) == [row for row in found if since <= int(str(row[0])) < 150]
        assert read(kafka, info, 0, 100) == []


def test_many_records_in_many_fetches(kafka: Kafka) -> None:
    with topic_of(kafka) as info:
        made = producer(kafka, "lz4")
        for at in range(30_000):
            made.produce(info.name, key=b"%d" % at, value=b"v" * (at % 97), headers=[("n", b"%d" % at)] * (at % 3))
            made.poll(0)
        made.flush(30)
        batches = list(kafka.read(info, OffsetRange(0, 3, 29_990), 1 << 16))
        assert len(batches) > 3
        assert rows(batches) == oracle(kafka, info.name)[3:29_990]


def test_another_topic_of_the_same_name_is_refused(kafka: Kafka) -> None:
    with topic_of(kafka) as info:
        send(producer(kafka), info.name, 1, 10)
        assert len(read_all(kafka, info)) == 10
        kafka.delete_topic(info.name)
        with pytest.raises(LodeError, match=r"with id .* was deleted"):
            read(kafka, info, 0, 10)
        again = kafka.create_topic(info.name, 1)
        send(producer(kafka), info.name, 2, 10)
        assert again.topic_id != info.topic_id
        with pytest.raises(LodeError, match=r"with id .* was deleted"):
            read(kafka, info, 0, 10)
        assert len(read_all(kafka, again)) == 10


def test_offsets_that_expired_are_an_error_and_no_gap_in_silence(kafka: Kafka) -> None:
    with topic_of(kafka) as info:
        send(producer(kafka), info.name, 1, 20)
        kafka.delete_records(info.name, {0: 12})
        assert kafka.offsets(info) == {0: (12, 20)}
        with pytest.raises(LodeError, match="offset 5 expired"):
            read(kafka, info, 5, 20)
        assert len(read_all(kafka, info)) == 8


def test_a_range_beyond_the_end_does_not_wait_for_ever(kafka: Kafka) -> None:
    with topic_of(kafka) as info, Kafka(kafka.settings.model_copy(update={"timeout_s": 2})) as hasty:
        send(producer(kafka), info.name, 1, 5)
        began = time.monotonic()
        with pytest.raises(ServerUnavailable, match="at offset 5: nothing to read"):
            read(hasty, info, 0, 6)
        assert 1 < time.monotonic() - began < 10


def test_a_slow_reader_is_no_silent_broker(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    with topic_of(kafka) as info, Kafka(kafka.settings.model_copy(update={"timeout_s": 2})) as hasty:
        for seed in range(3):
            send(producer(kafka), info.name, seed, 5)
        real, calls = Fetcher._fetch_once, 0

        def shaky(*arguments: Any) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise kafka_errors.NotLeaderForPartitionError()
            return real(*arguments)

        monkeypatch.setattr(Fetcher, "_fetch_once", shaky)
        batches = hasty.read(info, OffsetRange(0, 0, 15), 1)
        first = next(batches)
        time.sleep(2.2)  # a segment is compressed and stored
        assert len(rows([first, *batches])) == 15


def test_a_topic_that_is_not_there_is_named(kafka: Kafka) -> None:
    with topic_of(kafka) as info, pytest.raises(ConfigError, match=rf"'no-such-topic' does not exist.*{info.name}"):
        kafka.describe("no-such-topic")


def test_a_broker_that_is_down_is_told_in_time() -> None:
    script = f"from {Kafka.__module__} import *; Kafka(KafkaSettings(bootstrap_servers='127.0.0.1:1', timeout_s=2))"
    began = time.monotonic()  # in a process of its own, since kafka-python leaves its sockets to the collector
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "ServerUnavailable: Kafka at 127.0.0.1:1: " in done.stderr
    assert time.monotonic() - began < 15


def test_added_partitions_and_times(kafka: Kafka) -> None:
    with topic_of(kafka) as info:
        made = producer(kafka)
        for moment in (1_000, 3_000, 2_000, 4_000):
            made.produce(info.name, value=b"", timestamp=moment)
        made.flush(30)
        kafka.add_partitions(info.name, 3)
        deadline = time.monotonic() + 20
        while (grown := kafka.describe(info.name)).partitions != [0, 1, 2] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert grown.topic_id == info.topic_id
        assert kafka.offsets(grown) == {0: (0, 4), 1: (0, 0), 2: (0, 0)}
        assert kafka.offsets_at(grown, 1_500) == {0: 1}
        assert kafka.offsets_at(grown, 5_000) == {}
        assert kafka.average_record_bytes(grown, kafka.offsets(grown)) > 10
