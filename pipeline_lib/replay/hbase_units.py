"""The tasks of a replay to HBase: one partition's rows into one cluster.

A partition is one task, in the order of its offsets: of rows with one key and equal cell timestamps the later record's
has to stand. Putting a row again changes nothing, so a task that was killed goes on behind the last segment it noted.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline_lib.archive.segment import Segment
from pipeline_lib.config import Config
from pipeline_lib.datasets import replay_key
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.mapping import HBaseMapping, HBaseVersion, Row, event_time_of, rows
from pipeline_lib.hbase.put import Putter
from pipeline_lib.io.s3 import S3
from pipeline_lib.landing.rows import decoded_rows, land_records
from pipeline_lib.log import fact
from pipeline_lib.replay.plan import ReplayPlan
from pipeline_lib.replay.run import Replayed, read_planned
from pipeline_lib.topics import Topic


@dataclass(frozen=True)
class HBaseTarget:
    """Where a replay writes, as the plan has it.

    Attributes:
        clusters: HBase's own id of each.
        topic: the declaration by which events become rows.
        ids: the first key field of the rows that are wanted; none: all.
        cleared: with clear_span, the rows of each cluster that it removes.
        read_back: the share of the rows that the verification compares, chosen by their keys.
    """

    clusters: Mapping[str, str]
    version: str
    topic: Mapping[str, Any]
    ids: list[str]
    clear_span: bool
    cleared: Mapping[str, int] = field(default_factory=dict)
    read_back: float = 1.0

    @property
    def declared(self) -> Topic:
        return Topic.model_validate(self.topic)

    @property
    def mapping(self) -> HBaseMapping:
        return mapping_of(self.declared)

    @property
    def schema(self) -> HBaseVersion:
        return self.mapping.version(self.version)

    @property
    def table(self) -> str:
        return self.schema.table

    def wants(self, key: bytes) -> bool:
        """Whether a row's first key field is one of the ids."""
        return not self.ids or key[9:].split(b"\0", 1)[0].decode(errors="replace") in self.ids

    def compares(self, key: bytes) -> bool:
        """Whether the verification reads a row back: the same rows in every cluster and run."""
        return zlib.crc32(key) < self.read_back * (1 << 32)

    def rows(self, records: pa.RecordBatch, topic_id: str, partition: int) -> list[Row]:
        """The wanted rows of RAW_RECORD rows, in their order."""
        topic, mapping, schema, found = self.declared, self.mapping, self.schema, []
        for events in land_records([records], topic.make_codec(), topic_id, partition):
            found += [row for row in rows(decoded_rows(events), mapping, schema) if self.wants(row.key)]
        return found


@dataclass(frozen=True)
class HBaseUnit:
    """One partition's part of a replay in one cluster. `refused`: rows that HBase did not take, as `shown`."""

    config: Config
    plan: ReplayPlan
    cluster: str
    partition: int
    skip_corrupt: bool
    refused: frozenset[str] = frozenset()

    @property
    def target(self) -> HBaseTarget:
        return HBaseTarget(**self.plan.target)

    @property
    def mark_key(self) -> str:
        """The object that tells how far the unit came; beside the replay's entry, and none itself."""
        return f"{replay_key(self.plan.id).removesuffix('.json')}/{self.cluster}-{self.partition}"

    def shown(self, key: bytes) -> str:
        """A row's cluster and key; the key as the HBase shell takes it."""
        return f"{self.cluster} " + "".join(chr(b) if b in _PLAIN else f"\\x{b:02X}" for b in key)

    def rows(self, records: pa.RecordBatch) -> list[Row]:
        """The rows of the span. By event time a record may hold events of other times as well."""
        plan = self.plan
        found = self.target.rows(records, plan.topic_id, self.partition)
        if plan.by == "timestamp":
            return found
        return [row for row in found if plan.span.since_ms <= event_time_of(row.key) < plan.span.until_ms]

    def read(self, segments: Iterable[Segment]) -> Iterator[list[Row] | Segment]:
        """The rows of some segments, in order; a corrupt segment itself where it is to be skipped."""
        for records in read_planned(S3(self.config.s3), self.plan, list(segments), self.skip_corrupt):
            yield records if isinstance(records, Segment) else self.rows(records)


_PLAIN = frozenset(range(33, 127)) - frozenset(b"\"\\'")


@dataclass(frozen=True)
class Mark:
    """How far a unit came: up to which offset, and what it did and left out until there."""

    until: int = 0
    rows: int = 0
    corrupt: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @classmethod
    def read(cls, store: S3, key: str) -> "Mark":
        values = json.loads(store.get(key) or b"{}")
        return cls(**values | {name: tuple(values.get(name, ())) for name in ("corrupt", "refused")})


def write_unit(unit: HBaseUnit) -> Replayed:
    """Puts the rows of the segments that no former run has finished.

    Raises:
        VerificationFailed: a segment is corrupt; nothing of it was written.
    """
    store, config = S3(unit.config.s3), unit.config.hbase
    mark = Mark.read(store, unit.mark_key)
    with open_cluster(unit.config, unit.cluster) as cluster:
        for segment in unit.plan.partitions[unit.partition]:
            if segment.until <= mark.until:
                continue
            putter, corrupt = Putter(cluster, unit.target.table, config), mark.corrupt
            for found in unit.read([segment]):
                if isinstance(found, Segment):
                    corrupt = (*corrupt, found.path)
                else:
                    putter.put(found)
            refused = (*mark.refused, *map(unit.shown, putter.done.refused))
            mark = Mark(segment.until, mark.rows + putter.done.rows, corrupt, refused)
            store.put(unit.mark_key, json.dumps(asdict(mark)).encode())
            fact("progress", replay=unit.plan.id, cluster=unit.cluster, partition=unit.partition, rows=mark.rows)
    return Replayed(mark.rows, mark.corrupt, mark.refused)
