"""What the tests of replays to HBase share: a topic with rows, its archive, and the tables as they have to be."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pyarrow.compute as pc
from deployments import Deployment
from job_records import START, archive, here, produce

from pipeline_lib.config import Config
from pipeline_lib.datasets import replay_key
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.mapping import rows
from pipeline_lib.io.hbase import Cells
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.landing.rows import land_records
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.replay.hbase import HBaseSink
from pipeline_lib.replay.options import replay
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import plan
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import load_topic

Table = dict[bytes, Cells]
CLUSTERS = ("prod", "loki")
MINUTE, DAY = 60_000, 86_400_000
TABLE = f"rep_{uuid.uuid4().hex[:8]}"
"""One table for all tests, since it takes seconds to make one: each test has days and topics of its own."""
_DAYS = count(-100, -10)  # Kafka takes no records of the future


@dataclass(frozen=True)
class Case:
    """A topic of a test's own, and the first of its ten days (ms)."""

    deployment: Deployment
    kafka: Kafka
    topic: str
    day: int
    table: str = TABLE

    @property
    def config(self) -> Config:
        return self.deployment.config

    def span(self, since_ms: int = 0, until_ms: int = 10 * DAY) -> TimeSpan:
        at = datetime.fromtimestamp(self.day / 1000, UTC)
        return TimeSpan(at + timedelta(milliseconds=since_ms), at + timedelta(milliseconds=until_ms))

    def event(self, name: str, at_ms: int, **fields: Any) -> bytes:
        return json.dumps({"id": name, "at": self.day + at_ms, **fields}).encode()

    def archive(self, partition: int, values: Sequence[tuple[bytes, int]]) -> None:
        """Produces and archives (value, timestamp since the first day) records."""
        produce(self.config, self.topic, partition, [(value, self.day + at) for value, at in values])
        archive(self.config, self.topic)

    def sink(self, **options: Any) -> HBaseSink:
        return HBaseSink(**{"config": self.config, "run_units": here, **options})

    def replay(self, request: ReplayRequest | None = None, sink: HBaseSink | None = None) -> dict[str, Any]:
        """Plans and carries out; returns the entry."""
        request, sink = request or ReplayRequest(self.topic, self.span()), sink or self.sink()
        digest = plan(sink.config, request, sink).id
        replay(sink.config, request, sink, digest, skip_corrupt=False, as_json=True)
        return self.entry(digest)

    def entry(self, digest: str) -> dict[str, Any]:
        return dict(json.loads(S3(self.config.s3).get(replay_key(digest)) or b"{}"))

    def put(self, found: Mapping[bytes, Mapping[bytes, bytes]], timestamp: int, clusters: Any = CLUSTERS) -> None:
        for name in clusters:
            with open_cluster(self.config, name) as cluster:
                cluster.put(self.table, list(found.items()), timestamp)

    def stored(self, cluster: str, table: str = "") -> Table:
        """The rows of this case's days; none where the table is not made yet."""
        table = table or self.table
        since, until = (at.to_bytes(8, "big") for at in (self.day, self.day + 10 * DAY))
        with open_cluster(self.config, cluster) as opened:
            found = opened.scan(table) if table in opened.tables() else ()
            return {key: cells for key, cells in found if since <= key[1:9] < until}

    def expected(self, version: str = "v1", wanted: Callable[[bytes, int], bool] = lambda key, at: True) -> Table:
        """The rows of what was produced, as HBase keeps them when each is put in the order of its offset.

        Args:
            wanted: decides by a row's key and its record's timestamp (since the first day) about each.
        """
        topic, info = load_topic(self.config.topics, self.topic), self.kafka.describe(self.topic)
        mapping, found = mapping_of(topic), Table()
        for partition, (since, until) in self.kafka.offsets(info).items():
            records = self.kafka.read(info, OffsetRange(partition, since, until), 1 << 20)
            for events in land_records(records, topic.make_codec(), info.topic_id, partition):
                good = events.filter(pc.equal(events.column("quality"), "ok"))
                stamps = [round(at.timestamp() * 1000) - self.day for at in good.column("_timestamp").to_pylist()]
                for row, at in zip(rows(good, mapping, mapping.version(version)), stamps, strict=True):
                    if not wanted(row.key, at):
                        continue
                    cells = found.setdefault(row.key, {})
                    new = {name: (value, row.timestamp) for name, value in row.cells.items()}
                    cells |= {n: cell for n, cell in new.items() if cells.get(n, (b"", -1))[1] <= cell[1]}
        return found

    def assert_restored(self, clusters: Sequence[str] = CLUSTERS, **options: Any) -> None:
        """The oracle: the clusters hold what was produced, cell for cell."""
        expected = self.expected(**options)
        assert expected
        for name in clusters:
            assert self.stored(name) == expected, name


def new_case(deployment: Deployment, kafka: Kafka, name: str, partitions: int = 2, table: str = TABLE) -> Case:
    topic = deployment.declare(
        f"rep_{name}",
        'codec = "json"\nid_field = "id"\n[event_time]\nfield = "at"\n'
        '[fields]\nid = "string"\nat = "bigint"\nn = "bigint"\nbody = "string"\n'
        '[hbase]\nkey = ["id"]\nsalt_buckets = 2\n'
        f'[hbase.versions.v1]\ntable = "{table}"\n[hbase.versions.v2]\ntable = "{table}_v2"\nlayout = "packed"',
    )
    kafka.create_topic(topic, partitions, {"retention.ms": "-1", "max.message.bytes": "30000000"})
    return Case(deployment, kafka, topic, START + next(_DAYS) * DAY, table)
