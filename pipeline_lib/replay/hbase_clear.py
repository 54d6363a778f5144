"""--clear-span: the rows of a span that neither the archive nor Kafka has, as a bad job leaves them in a table.

Rows of every topic of this name that was ever archived are kept, and those of records that Kafka has and the archive
has not yet: a live serve may have written them. A row that is kept is never deleted and put again, since a put below a
delete marker stays invisible.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.log import read_commits
from pipeline_lib.archive.segment import Segment
from pipeline_lib.config import Config
from pipeline_lib.hbase.clusters import open_cluster
from pipeline_lib.hbase.mapping import event_time_of
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.hbase import HBase
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.replay.hbase_units import HBaseTarget
from pipeline_lib.replay.plan import ReplayPlan, overlaps
from pipeline_lib.replay.run import read_planned
from pipeline_lib.timespan import TimeSpan

KEYS = 500_000
"""Row keys of the archive that one task holds in memory; a span with more is halved."""
SLICE = 10_000
"""Rows that are looked for in Kafka together, before they are removed."""


@dataclass(frozen=True)
class ClearUnit:
    """A part of the span in all clusters.

    Attributes:
        plan: the replay's, with this part's span and without segments.
        archived: the segments that may hold events of the span, with the Kafka cluster that each is from.
        ends: the offset up to which each topic id's partition is archived.
        remove: whether to remove the rows, or only to count them.
    """

    config: Config
    plan: ReplayPlan
    archived: tuple[tuple[str, Segment], ...]
    ends: Mapping[tuple[str, int], int]
    remove: bool

    @property
    def target(self) -> HBaseTarget:
        return HBaseTarget(**self.plan.target)

    def part(self, span: TimeSpan) -> "ClearUnit":
        inside = tuple(pair for pair in self.archived if overlaps(pair[1], "event_time", span))
        return replace(self, plan=replace(self.plan, span=span), archived=inside)


Runner = Callable[[Callable[[Any], Any], list[Any]], list[Any]]


def clear(config: Config, plan: ReplayPlan, run_units: Runner, remove: bool) -> dict[str, int]:
    """Removes, or only counts, the rows of each cluster that are to be cleared.

    Raises:
        VerificationFailed: a segment or a commit chain is broken, so what the archive has is not known for sure.
    """
    archived, ends = _read_archives(config, plan)
    unit = ClearUnit(config, replace(plan, segments=()), archived, ends, remove)
    parts = 1 + sum(segment.records for _, segment in archived) // KEYS
    step = (plan.span.until - plan.span.since) / parts
    counts: list[dict[str, int]] = run_units(clear_unit, [unit.part(span) for span in plan.span.chunks(step)])
    return {name: sum(count[name] for count in counts) for name in unit.target.clusters}


def _read_archives(
    config: Config, plan: ReplayPlan
) -> tuple[tuple[tuple[str, Segment], ...], dict[tuple[str, int], int]]:
    """The segments of the span in the topic's archive of every Kafka cluster, and how far each partition is archived."""
    found, ends = [], {}
    for name in S3(config.s3).folders("archive/"):
        table = ArchiveTable(config.s3, archive_path(name, plan.topic))
        if not table.exists:
            continue
        for commit in read_commits(table):
            found += [(name, segment) for segment in commit.segments if overlaps(segment, "event_time", plan.span)]
            ends.update({(commit.topic_id, p): until for p, (_, until) in commit.covers.items()})
    return tuple(found), ends


def clear_unit(unit: ClearUnit) -> dict[str, int]:
    """How many rows of each cluster are to be cleared in the unit's span; removes them where that is asked for."""
    known = _archived_keys(unit)
    span, counts = unit.plan.span, dict.fromkeys(unit.target.clusters, 0)
    if known is None:
        halves = [clear_unit(unit.part(half)) for half in span.chunks((span.until - span.since) / 2)]
        return {name: sum(half[name] for half in halves) for name in counts}
    for name in counts:
        with open_cluster(unit.config, name) as cluster:
            if unit.target.table in cluster.tables():
                counts[name] = _clear(unit, cluster, known)
    return counts


def _archived_keys(unit: ClearUnit) -> set[bytes] | None:
    """The row keys of the archived events of the span; None where they are too many to hold and can be halved."""
    span, keys = unit.plan.span, set[bytes]()
    divisible = span.until_ms - span.since_ms > 1
    for cluster, segment in unit.archived:
        plan = replace(unit.plan, cluster=cluster)
        for records in read_planned(S3(unit.config.s3), plan, [segment], skip_corrupt=False):
            assert not isinstance(records, Segment)
            found = unit.target.rows(records, segment.topic_id, segment.partition)
            keys |= {row.key for row in found if span.since_ms <= event_time_of(row.key) < span.until_ms}
            if divisible and len(keys) > KEYS:
                return None
    return keys


def _clear(unit: ClearUnit, cluster: HBase, known: set[bytes]) -> int:
    removed, foreign = 0, _foreign(unit, cluster, known)
    while found := dict(islice(foreign, SLICE)):
        for key in _in_kafka(unit, found.keys()):
            del found[key]
        removed += len(found)
        if unit.remove:
            _remove(unit, cluster, found)
            fact("cleared", replay_of=unit.plan.topic, cluster=cluster.name, rows=removed)
    return removed


def _foreign(unit: ClearUnit, cluster: HBase, known: set[bytes]) -> Iterator[tuple[bytes, int]]:
    """The wanted rows of the span that are not known, each with the timestamp of its newest cell."""
    target, span = unit.target, unit.plan.span
    for salt in target.mapping.salts:
        since, until = (salt + ms.to_bytes(8, "big", signed=True) for ms in (span.since_ms, span.until_ms))
        for key, cells in cluster.scan(target.table, since, until):
            if key not in known and target.wants(key):
                yield key, max(at for _, at in cells.values())


def _in_kafka(unit: ClearUnit, keys: Any) -> set[bytes]:
    """Those of the keys that a record has which is in Kafka and not in the archive. They are asked for after the rows
    were seen, so that a row that a serve wrote meanwhile has its record there."""
    found: set[bytes] = set()
    with Kafka(unit.config.kafka) as kafka:
        if unit.plan.topic not in kafka.topics():
            return found
        info = kafka.describe(unit.plan.topic)
        for partition, (earliest, stable) in kafka.offsets(info).items():
            rest = OffsetRange(partition, max(earliest, unit.ends.get((info.topic_id, partition), 0)), stable)
            for records in kafka.read(info, rest, unit.config.batch.fetch_bytes):
                found |= {row.key for row in unit.target.rows(records, info.topic_id, partition)} & keys
    return found


def _remove(unit: ClearUnit, cluster: HBase, found: Mapping[bytes, int]) -> None:
    """Deletes rows at the timestamps of their newest cells, so that what is put later is seen."""
    by_time: dict[int, list[bytes]] = {}
    for key, at in found.items():
        by_time.setdefault(at, []).append(key)
    most = unit.config.hbase.batch_rows
    for at, keys in by_time.items():
        for start in range(0, len(keys), most):
            cluster.delete(unit.target.table, keys[start : start + most], at)
