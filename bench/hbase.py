"""Replay to HBase beside a plain happybase loop and the Java client, and the bytes of a row in either schema.

The loop and the Java client are given the rows; a replay reads them from S3, checks and decodes them before it puts
them, and reads back what it put. All of it is one cluster's, which shares the machine's cores with its clients.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import happybase
import pyarrow as pa
from rich.console import Console

from bench.hbase_java import load
from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.mapping import HBaseMapping, put_batches, rows
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_produce import Writer
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.landing.rows import land_records
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.replay.hbase import HBaseSink
from pipeline_lib.replay.plan import ReplayPlan, ReplayRequest
from pipeline_lib.replay.run import Replayed, Verified, execute, plan
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import Topic, load_topic

ROWS, PARTITIONS = int(os.environ.get("BENCH_ROWS", 200_000)), 4
NAMES = [f"field_{i}" for i in range(12)]
SPAN = TimeSpan.parse("2026-01-01", "2027-01-01")
START = 1_790_000_000_000
TOML = f"""name = "bench-rows"
codec = "json"
id_field = "id"
[event_time]
field = "at"
[fields]
id = "string"
at = "bigint"
{chr(10).join(f'{name} = "string"' for name in NAMES)}
[hbase]
key = ["id"]
[hbase.versions.v1]
table = "bench"
[hbase.versions.v2]
table = "bench_packed"
layout = "packed"
"""

Measure = Callable[[str, Callable[[], Any], int, int], Any]
Apart = Callable[[str, float, int, int], None]


def run(config: Config, measured: Measure, measured_apart: Apart, console: Console) -> None:
    """Prints nothing itself but what is no rate; `measured` and `measured_apart` make the lines of the table."""
    path = config.topics / "bench-rows.toml"
    path.write_text(TOML)
    topic = load_topic(config.topics, "bench-rows")
    size = _produce(config, topic)
    runner = spark_runner("bench")
    archive_topic(config, topic, Limits(), runner)
    events = _events(topic)
    measured("limit: one happybase loop puts the rows", lambda: _loop(config, topic, events), ROWS, size)
    seconds = _java(config, topic)
    measured_apart("limit: the Java client's buffered mutator", seconds, ROWS, size)
    request = ReplayRequest(topic.name, SPAN)
    for version in ("v1", "v2"):
        sink = TimedSink(config, runner, ("prod",), version)
        digest = plan(config, request, sink).id
        entry = execute(config, request, sink, digest, skip_corrupt=False)
        measured_apart(f"replay to Prod, {version}: read from S3, decode, put", sink.seconds["write"], ROWS, size)
        measured_apart(f"replay to Prod, {version}: read back and compare", sink.seconds["verify"], ROWS, size)
        console.print(f"replay to HBase, {version}: {entry['status']}, {entry['records']:,} rows")
    console.print(f"bytes a row in HBase's cells: {_cell_bytes(topic)}")


class TimedSink(HBaseSink):
    """Notes what the two halves of a replay take."""

    seconds: ClassVar[dict[str, float]] = {}

    def write(self, plan: ReplayPlan, begun: Mapping[str, Any], skip_corrupt: bool) -> Replayed:
        started = time.monotonic()
        done = super().write(plan, begun, skip_corrupt)
        self.seconds["write"] = time.monotonic() - started
        return done

    def verify(self, plan: ReplayPlan, begun: Mapping[str, Any], written: Replayed, skip_corrupt: bool) -> Verified:
        started = time.monotonic()
        done = super().verify(plan, begun, written, skip_corrupt)
        self.seconds["verify"] = time.monotonic() - started
        return done


def _java(config: Config, topic: Topic) -> float:
    mapping = mapping_of(topic)
    with open_cluster(config, "prod") as prod:
        prod.create_table("bench_java", mapping.family, mapping.salt_buckets)
        load(prod.settings, "bench_java", mapping.family, mapping.salt_buckets, ROWS // 4, len(NAMES), START)  # warm
        return load(prod.settings, "bench_java", mapping.family, mapping.salt_buckets, ROWS, len(NAMES), START)


def _event(number: int) -> bytes:
    fields = {name: f"{name} of {number % 997}" for name in NAMES}
    return json.dumps({"id": f"event-{number:09d}", "at": START + number, **fields}).encode()


def _produce(config: Config, topic: Topic) -> int:
    with Kafka(config.kafka) as kafka:
        kafka.create_topic(topic.name, PARTITIONS, {"retention.ms": "-1"})
    writer = Writer(config.kafka)
    for number in range(ROWS):
        writer.write(topic.name, b"%d" % number, _event(number), START + number)
    writer.flush()
    return len(_event(0))


def _events(topic: Topic) -> list[pa.RecordBatch]:
    """The decoded events: a loop that only has to put them is the limit of one process."""
    found = []
    for at in range(0, ROWS, 10_000):
        values = [
            {"offset": n, "timestamp": START + n, "timestamp_type": 0, "key": None, "value": _event(n), "headers": []}
            for n in range(at, min(at + 10_000, ROWS))
        ]
        found += list(land_records([pa.RecordBatch.from_pylist(values, schema=RAW_RECORD)], topic.make_codec(), "t", 0))
    return found


def _loop(config: Config, topic: Topic, events: list[pa.RecordBatch]) -> None:
    assert config.hbase.prod
    mapping = mapping_of(topic)
    with open_cluster(config, "prod") as prod:
        prod.create_table("bench_loop", mapping.family, mapping.salt_buckets)
    host, port = config.hbase.prod.thrift.split(":")
    table = happybase.Connection(host, int(port)).table("bench_loop")
    for batch in events:
        for some in put_batches(rows(batch, mapping, mapping.version("v1")), 1000, 2 << 20):
            with table.batch(timestamp=some[0].timestamp) as requests:
                for row in some:
                    requests.put(row.key, row.cells)


def _cell_bytes(topic: Topic) -> str:
    """KeyValue's own layout: 20 bytes beside row, family, qualifier and value of every cell."""
    mapping: HBaseMapping = mapping_of(topic)
    (events,) = land_records(
        [pa.RecordBatch.from_pylist([{"offset": 0, "timestamp": START, "timestamp_type": 0, "key": None,
                                      "value": _event(1), "headers": []}], schema=RAW_RECORD)],
        topic.make_codec(), "t", 0)  # fmt: skip
    found = {}
    for name in mapping.versions:
        (row,) = rows(events, mapping, mapping.version(name))
        found[name] = sum(20 + len(row.key) + len(cell) - 1 + len(value) for cell, value in row.cells.items())
    return ", ".join(f"{name} {size}" for name, size in found.items()) + f" ({found['v2'] / found['v1']:.2f} of v1)"
