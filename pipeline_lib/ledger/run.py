"""The ledger's reading: what Kafka, the events table and the archive hold now, and which replays were made."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.archive.commits import ArchiveCommit
from pipeline_lib.archive.log import kafka_if_up, read_archive
from pipeline_lib.archive.segment import Segment
from pipeline_lib.config import Config, KafkaSettings, S3Settings
from pipeline_lib.datasets import events_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.events_table import EventsSnapshot, EventsTable, SparkSession
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.io.s3 import S3
from pipeline_lib.io.s3_file import RangedObject
from pipeline_lib.landing.expiry import to_version
from pipeline_lib.ledger.reconcile import Cell, Ledger, Partition, Stage, Tally, count_records, reconcile, zone_borders
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange

LATE_MS = 3_600_000
ALL_TIME = (-(1 << 62), 1 << 62)


@dataclass(frozen=True)
class CountUnit:
    """Records to count: an offset range of Kafka, or segments of the archive that belong together."""

    kafka: KafkaSettings
    s3: S3Settings
    fetch_bytes: int
    partition: Partition
    borders: Sequence[int]
    span_ms: tuple[int, int]
    info: TopicInfo | None = None
    range: OffsetRange | None = None
    path: str = ""
    segments: tuple[Segment, ...] = ()


Runner = Callable[[Callable[[CountUnit], list[Cell]], list[CountUnit]], list[list[Cell]]]


def count_unit(unit: CountUnit) -> list[Cell]:
    """Really reads the records: offsets and timestamps, nothing is inferred from ends."""
    if unit.info and unit.range:
        with Kafka(unit.kafka) as kafka:
            return [
                cell
                for batch in kafka.read(unit.info, unit.range, unit.fetch_bytes)
                for cell in _cells(unit, [batch.select(["offset", "timestamp"])])
            ]
    store, batches = S3(unit.s3), []
    for segment in unit.segments:
        try:
            source = pa.PythonFile(RangedObject(store, f"{unit.path}/{segment.path}", segment.bytes), mode="r")
            batches += pq.ParquetFile(source, buffer_size=1 << 20).read(["offset", "timestamp"]).to_batches()
        except (pa.ArrowException, OSError, ValueError) as error:
            fact("unreadable_segment", segment=segment.path, error=error)  # its records are missing: the row says so
    return _cells(unit, batches)


def _cells(unit: CountUnit, batches: list[pa.RecordBatch]) -> list[Cell]:
    if not batches:
        return []
    offsets = np.concatenate([batch.column("offset").to_numpy() for batch in batches])
    times = np.concatenate([batch.column("timestamp").cast(pa.int64()).to_numpy() for batch in batches])
    return count_records(unit.partition, offsets, times, unit.borders, unit.span_ms)


def read_ledger(
    config: Config, topic: str, since_ms: int | None, until_ms: int | None, spark: SparkSession, run_units: Runner
) -> Ledger:
    """The ledger of a topic's records with a timestamp in [since, until); a stage that does not exist is left out.

    The events table and the archive are read as of one version each and before Kafka's ends, so that what is made
    meanwhile shows as `behind` at most.

    Raises:
        VerificationFailed: the archive's commit chain is broken.
    """
    span_ms = (ALL_TIME[0] if since_ms is None else since_ms, ALL_TIME[1] if until_ms is None else until_ms)
    ledger, table = Ledger(topic), EventsTable(spark, events_path(config.hdfs, topic))
    snapshot = table.snapshot() if table.exists else None
    landed = _landed(snapshot, ledger) if snapshot else None
    with kafka_if_up(config.kafka) as kafka:
        path, commits = _commits(config, kafka, topic, ledger)
        archived = _archived(commits, ledger) if commits else None
        held, info, compacted = _kafka(kafka, topic, ledger)
        borders = zone_borders(stage for stage in (held, landed, archived) if stage)
        unit = CountUnit(config.kafka, config.s3, config.batch.fetch_bytes, ("", 0), (), span_ms)
        reads = (
            _kafka_units(kafka, info, held, unit, borders, config.batch.unit_records) if kafka and info and held else []
        )
        segments = [segment for commit in commits for segment in commit.segments]
        parts = [replace(unit, path=path, partition=(group[0].topic_id, group[0].partition),
                         borders=borders.get((group[0].topic_id, group[0].partition), ()), segments=group)
                 for group in _groups(segments, span_ms)]  # fmt: skip
        fact("reading", topic=topic, kafka_units=len(reads), segments=len(segments))
        found = run_units(count_unit, [*reads, *parts])
    if held:
        held = replace(held, cells=[cell for cells in found[: len(reads)] for cell in cells])
    if archived:
        archived = replace(archived, cells=[cell for cells in found[len(reads) :] for cell in cells])
    if landed and snapshot:
        landed = replace(landed, cells=_landed_cells(table, snapshot, borders, span_ms))
    ledger.rows = reconcile(held, landed, archived, compacted)
    ledger.replays = read_replays(S3(config.s3), topic)
    for stage, name in ((held, "in Kafka"), (landed, "landed"), (archived, "archived")):
        if not stage:
            ledger.notes.append(f"the topic is not {name}")
    return ledger


def _landed(snapshot: EventsSnapshot, ledger: Ledger) -> Stage:
    held = {}
    for app, until in snapshot.progress.items():
        if app.startswith("lode:") and app.count(":") == 2:
            _, topic_id, partition = app.split(":")
            held[topic_id, int(partition)] = (0, until)
    gaps = [(commit["topic_id"], OffsetRange(*gap)) for commit in snapshot.commits for gap in commit.get("gaps", ())]
    _add_gaps(ledger, "land", gaps)
    before = snapshot.expired_before
    if before:
        ledger.notes.append(f"landed records of before {before} may have been removed, by `lode expire`")
    return Stage((), held, gaps, to_version(before) * 24 if before else 0)


def _landed_cells(
    table: EventsTable, snapshot: EventsSnapshot, borders: dict[Partition, list[int]], span_ms: tuple[int, int]
) -> list[Cell]:
    return [
        Cell(
            (found.topic_id, found.partition),
            found.hour,
            found.zone,
            Tally(found.ok + found.quarantined, found.offset_sum, found.offset_xor),
            found.quarantined,
            found.duplicates,
            found.late,
        )
        for found in table.count(snapshot.version, borders, *span_ms, LATE_MS)
    ]


def _commits(config: Config, kafka: Kafka | None, topic: str, ledger: Ledger) -> tuple[str, list[ArchiveCommit]]:
    try:
        return read_archive(config, kafka, topic)
    except ConfigError as error:
        ledger.notes.append(str(error))
        return "", []


def _archived(commits: Sequence[ArchiveCommit], ledger: Ledger) -> Stage:
    held = {(commit.topic_id, p): (0, until) for commit in commits for p, (_, until) in commit.covers.items()}
    gaps = [(commit.topic_id, gap) for commit in commits for gap in commit.gaps]
    _add_gaps(ledger, "archive", gaps)
    return Stage((), held, gaps)


def _add_gaps(ledger: Ledger, stage: str, gaps: Sequence[tuple[str, OffsetRange]]) -> None:
    ledger.gaps += [
        {"stage": stage, "topic_id": topic_id, "partition": gap.partition, "since": gap.since, "until": gap.until}
        for topic_id, gap in gaps
    ]


def _kafka(kafka: Kafka | None, topic: str, ledger: Ledger) -> tuple[Stage | None, TopicInfo | None, bool]:
    if not kafka:
        ledger.notes.append("Kafka does not answer")
        return None, None, False
    try:
        info = kafka.describe(topic)
    except ConfigError:
        return None, None, False
    bounds = {(info.topic_id, p): ends for p, ends in kafka.offsets(info).items()}
    return Stage((), bounds), info, "compact" in kafka.topic_settings(topic).get("cleanup.policy", "")


def _kafka_units(
    kafka: Kafka, info: TopicInfo, held: Stage, unit: CountUnit, borders: dict[Partition, list[int]], most: int
) -> list[CountUnit]:
    """Timestamps need not increase: a span bounds the offsets from below only, by the first that is late enough."""
    starts = kafka.offsets_at(info, unit.span_ms[0]) if unit.span_ms[0] > 0 else None
    units = []
    for partition, (earliest, stable) in held.held.items():
        since = earliest if starts is None else max(earliest, starts.get(partition[1], stable))
        for part in OffsetRange(partition[1], since, stable).split(most):
            units.append(replace(unit, partition=partition, borders=borders[partition], info=info, range=part))
    return units


def _groups(segments: Sequence[Segment], span_ms: tuple[int, int]) -> list[tuple[Segment, ...]]:
    """The segments that may have records of the span; those with offsets in common together, to see duplicates."""
    found: dict[Partition, list[list[Segment]]] = defaultdict(list)
    for segment in sorted(segments, key=lambda s: s.offsets):
        if segment.timestamps[0] >= span_ms[1] or segment.timestamps[1] < span_ms[0]:
            continue
        groups = found[segment.topic_id, segment.partition]
        if groups and segment.offsets[0] <= max(s.offsets[1] for s in groups[-1]):
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return [tuple(group) for groups in found.values() for group in groups]


def read_replays(store: S3, topic: str) -> list[dict[str, object]]:
    """What the replays' own entries tell, newest first; an entry that cannot be read is listed as such."""
    found = []
    for entry in store.list("replays/"):
        if not entry.key.endswith(".json"):
            continue
        try:
            values = json.loads(store.get(entry.key) or b"")
            merged = {**(values.get("plan") or {}), **values}
        except (ValueError, AttributeError, TypeError):
            merged = {"topic": topic, "status": "entry is not readable"}
        if merged.get("topic") == topic:
            merged.setdefault("id", entry.key.removeprefix("replays/").removesuffix(".json"))
            names = ("id", "status", "sink", "span", "records", "missing", "target", "verified", "started", "finished")
            found.append((entry.modified, {name: merged[name] for name in names if name in merged}))
    return [values for _, values in sorted(found, key=lambda pair: pair[0], reverse=True)]
