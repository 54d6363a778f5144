"""The sides of a comparison: a table of Prod or Loki, or the rows that the archive makes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.archive.log import kafka_if_up, read_archive
from pipeline_lib.archive.segment import Segment, read_segment
from pipeline_lib.config import Config, HBaseCluster, S3Settings
from pipeline_lib.errors import ConfigError
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.diff import Places, Range, Stored, Values
from pipeline_lib.hbase.mapping import Row, latest, rows
from pipeline_lib.io.hbase import HBase
from pipeline_lib.io.s3 import S3
from pipeline_lib.landing.rows import decoded_rows, land_records
from pipeline_lib.topics import Topic

SideName = Literal["prod", "loki", "archive"]

READ_RECORDS = 10_000


@dataclass(frozen=True)
class ClusterSide:
    """A table of one cluster."""

    name: str
    settings: HBaseCluster
    table: str


@dataclass(frozen=True)
class ArchiveSide:
    """The rows that the archive at `path` makes; `segments` are in the order of their commits."""

    name: str
    s3: S3Settings
    path: str
    segments: tuple[Segment, ...]
    topic: Topic
    version: str


Side = ClusterSide | ArchiveSide


@dataclass(frozen=True)
class Part:
    """The rows of one side in some ranges, all of event times of a chunk [since, until) (ms)."""

    side: Side
    ranges: tuple[Range, ...]
    chunk: tuple[int, int]


def open_side(config: Config, name: SideName, topic: Topic, version: str) -> Side:
    """Raises ConfigError where the deployment has no such cluster, or the topic no archive."""
    if name != "archive":
        return ClusterSide(name, open_cluster(config, name).settings, mapping_of(topic).version(version).table)
    with kafka_if_up(config.kafka) as kafka:
        path, commits = read_archive(config, kafka, topic.name)
    if not commits:
        raise ConfigError(f"topic {topic.name!r} was never archived: there is no table {path}")
    segments = tuple(segment for commit in commits for segment in commit.segments)
    return ArchiveSide(name, config.s3, path, segments, topic, version)


def time_chunks(
    held: Iterable[tuple[int, int, int]], since_ms: int, until_ms: int, records: int
) -> list[tuple[int, int]]:
    """A span cut into [since, until) chunks of about so many records each.

    Args:
        held: earliest and latest event time (ms) and number of records of each segment; within it they count as
            spread evenly.
    """
    change: dict[int, float] = defaultdict(float)
    for first, last, count in held:
        change[first] += count / (last - first + 1)
        change[last + 1] -= count / (last - first + 1)
    cuts, at, weight, rate = [], min(change, default=0), 0.0, 0.0
    for edge in sorted(change):
        while at < edge and weight + rate * (edge - at) >= records:
            at = min(edge, at + max(1, int((records - weight) / rate)))
            cuts.append(at)
            weight = 0.0
        weight, at, rate = weight + rate * (edge - at), edge, rate + change[edge]
    return list(pairwise([since_ms, *(cut for cut in cuts if since_ms < cut < until_ms), until_ms]))


def part_of(side: Side, ranges: Sequence[Range], chunk: tuple[int, int]) -> Part:
    """A part of a side; of the archive it has only the segments with events of the chunk."""
    if isinstance(side, ArchiveSide):
        held = [s for s in side.segments if s.event_times and _meets(s.event_times, chunk)]
        side = replace(side, segments=tuple(held))
    return Part(side, tuple(ranges), chunk)


def _meets(times: tuple[int, int], chunk: tuple[int, int]) -> bool:
    return times[0] < chunk[1] and chunk[0] <= times[1]


def read_part(part: Part, opened: ExitStack) -> Iterator[Stored]:
    """The rows of a part in the order of their keys; of the archive they are held all at once.

    Raises:
        VerificationFailed: a segment is missing or corrupt.
    """
    if isinstance(part.side, ArchiveSide):
        return ((row.key, {name: (value, row.timestamp) for name, value in row.cells.items()})
                for row in _sorted(part.side, part))  # fmt: skip
    cluster = opened.enter_context(HBase(part.side.name, part.side.settings))
    return chain.from_iterable(cluster.scan(part.side.table, *each.keys) for each in part.ranges)


def read_values(part: Part, opened: ExitStack) -> Iterator[tuple[bytes, Values]]:
    """As `read_part`, without the cells' timestamps."""
    if isinstance(part.side, ArchiveSide):
        return ((row.key, row.cells) for row in _sorted(part.side, part))
    cluster = opened.enter_context(HBase(part.side.name, part.side.settings))
    return chain.from_iterable(cluster.scan_values(part.side.table, *each.keys) for each in part.ranges)


def _sorted(side: ArchiveSide, part: Part) -> Iterator[Row]:
    found = latest(_archived(side, part.ranges, part.chunk))
    return (found[key] for key in sorted(found))


def _archived(side: ArchiveSide, ranges: Sequence[Range], chunk: tuple[int, int]) -> Iterator[Row]:
    """Every archived row of the ranges, repeated ones too, in the order in which they were archived."""
    store, codec, places = S3(side.s3), side.topic.make_codec(), Places(ranges)
    mapping = mapping_of(side.topic)
    for segment in side.segments:
        data = read_segment(segment, store.get(f"{side.path}/{segment.path}"))
        batches = (_of_chunk(batch, chunk) for batch in data.iter_batches(READ_RECORDS))
        for events in land_records(batches, codec, segment.topic_id, segment.partition):
            decoded = decoded_rows(events)
            yield from (row for row in rows(decoded, mapping, mapping.version(side.version)) if row.key in places)


def _of_chunk(records: pa.RecordBatch, chunk: tuple[int, int]) -> pa.RecordBatch:
    """The records that have events of the chunk, so that a segment of several chunks is decoded once in all."""
    first, last = (records.column(name).cast(pa.int64()) for name in ("event_time", "event_time_max"))
    return records.filter(pc.fill_null(pc.and_(pc.less(first, chunk[1]), pc.greater_equal(last, chunk[0])), False))
