"""S3 -> Kafka: a replay, from plan to verification.

The ledger s3://.../replays/ID.json is written once when a replay starts (with its whole plan, so that a resumed one
does what was approved whatever the archive has become) and once when it ends.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.archive import ArchiveCommit, archive_path
from pipeline_lib.config import BatchSettings, Config, KafkaSettings, S3Settings
from pipeline_lib.datasets import replay_key
from pipeline_lib.errors import ConfigError, TargetRefuses, VerificationFailed
from pipeline_lib.io.kafka import Kafka, TopicInfo
from pipeline_lib.io.kafka_produce import TransactionalWriter
from pipeline_lib.io.s3 import S3, ArchiveTable
from pipeline_lib.log import fact
from pipeline_lib.preflight import preflight
from pipeline_lib.progress import OffsetRange
from pipeline_lib.record_batch import RAW_RECORD
from pipeline_lib.replay import (
    ORIGINAL_TIMESTAMP,
    By,
    ReplayPlan,
    Timestamps,
    select_records,
    select_segments,
    started_entry,
    unmatched,
)
from pipeline_lib.segment import Segment, read_segment
from pipeline_lib.timespan import TimeSpan

TRANSACTION_RECORDS = 50_000
"""Records of one transaction: what a killed replay writes again. Measured at 82 MB/s; smaller ones were slower."""


@dataclass(frozen=True)
class ReplayRequest:
    """What the user asks for; the defaults replay a topic to itself as it was."""

    topic: str
    span: TimeSpan
    by: By = "timestamp"
    partitions: tuple[int, ...] = ()
    target: str = ""
    timestamps: Timestamps = "original"
    topic_id: str | None = None


@dataclass(frozen=True)
class ReplayUnit:
    """One partition's part of a replay, with all that a task needs wherever it runs."""

    kafka: KafkaSettings
    s3: S3Settings
    batch: BatchSettings
    plan: ReplayPlan
    partition: int
    skip_corrupt: bool
    target: TopicInfo
    target_since: int


@dataclass(frozen=True)
class PartReport:
    """What a partition's replay wrote in this run, and the segments that it left out."""

    records: int
    corrupt: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartVerification:
    expected: int
    missing: int
    foreign: int


Runner = Callable[[Callable[[ReplayUnit], Any], list[ReplayUnit]], list[Any]]


def plan_replay(config: Config, request: ReplayRequest) -> tuple[ReplayPlan, list[str]]:
    """The plan, and what its target would lose or change. Reads the archive's commits and the target's settings."""
    target = request.target or request.topic
    with Kafka(config.kafka) as kafka:
        cluster, info, settings = kafka.cluster_id(), kafka.describe(target), kafka.topic_settings(target)
    table = ArchiveTable(config.s3, archive_path(cluster, request.topic))
    if not table.exists:
        raise ConfigError(f"topic {request.topic!r} of cluster {cluster} was never archived: no table {table.path}")
    commits = [ArchiveCommit.from_json(text) for text in table.commits()]
    segments = select_segments(commits, request.span, request.by, request.partitions, request.topic_id)
    plan = ReplayPlan(
        cluster=cluster,
        topic=request.topic,
        topic_id=segments[0].topic_id,
        span=request.span,
        by=request.by,
        timestamps=request.timestamps,
        target=target,
        target_id=info.topic_id,
        segments=tuple(sorted(segments, key=lambda s: (s.partition, s.since))),
    )
    return plan, preflight(plan, info.partitions, settings, datetime.now(UTC))


def execute_replay(
    config: Config, request: ReplayRequest, digest: str, skip_corrupt: bool, run_units: Runner
) -> dict[str, Any]:
    """Carries out the plan with this digest, or goes on with it, and verifies; returns the ledger's entry.

    Raises:
        TargetRefuses: the target would lose or change records, or is not the topic that the replay began with.
        VerificationFailed: a segment is corrupt (nothing of it was written), or the target differs afterwards.
    """
    store = S3(config.s3)
    entry = _started(config, store, request, digest)
    if entry["status"] == "done":
        fact("already_done", replay=digest)
        return entry
    plan = ReplayPlan.from_dict(entry["plan"])
    ends = {int(p): at for p, at in entry["target_offsets"].items()}
    with Kafka(config.kafka) as kafka:
        target = kafka.describe(plan.target)
        _check_resumable(kafka, plan, target)
    units = [
        ReplayUnit(config.kafka, config.s3, config.batch, plan, partition, skip_corrupt, target, ends[partition])
        for partition in plan.partitions
    ]
    written: list[PartReport] = run_units(replay_unit, units)
    corrupt = [path for part in written for path in part.corrupt]
    fact("replayed", replay=digest, records=sum(part.records for part in written), corrupt=len(corrupt))
    checked: list[PartVerification] = run_units(verify_unit, units)
    entry |= {
        "finished": datetime.now(UTC).isoformat(),
        "records": sum(part.expected for part in checked),
        "missing": sum(part.missing for part in checked),
        "foreign": sum(part.foreign for part in checked),
        "corrupt": corrupt,
    }
    entry["status"] = "differs" if entry["missing"] else "done"
    store.put(replay_key(digest), json.dumps(entry).encode())
    fact("verified", replay=digest, status=entry["status"], records=entry["records"], missing=entry["missing"])
    return entry


def _started(config: Config, store: S3, request: ReplayRequest, digest: str) -> dict[str, Any]:
    """The ledger's entry of the replay; begins it where there is none."""
    if (known := store.get(replay_key(digest))) is not None:
        return dict(json.loads(known))
    plan, problems = plan_replay(config, request)
    if plan.id != digest:
        raise ConfigError(
            f"--execute {digest}: these options now make the plan {plan.id}; look at it again before it is executed"
        )
    if problems:
        raise TargetRefuses("\n".join(problems))
    with Kafka(config.kafka) as kafka:
        target = kafka.describe(plan.target)
        ends = {p: end for p, (_, end) in kafka.offsets(target).items()}
        kafka.set_group_offsets(
            group(plan), plan.target, {p: segments[0].since for p, segments in plan.partitions.items()}
        )
    entry = started_entry(plan, ends, datetime.now(UTC))
    if not store.put_if_absent(replay_key(digest), json.dumps(entry).encode()):
        return _started(config, store, request, digest)
    fact("started", replay=digest, segments=len(plan.segments), target=plan.target)
    return entry


def group(plan: ReplayPlan) -> str:
    """The consumer group, and the prefix of the transactional ids, of a replay."""
    return f"lode.replay.{plan.id}"


def _check_resumable(kafka: Kafka, plan: ReplayPlan, target: TopicInfo) -> None:
    if target.topic_id != plan.target_id:
        raise TargetRefuses(f"{plan.target} was deleted and made again since this replay began: plan a new one")
    offsets = kafka.group_offsets(group(plan))
    lost = [p for p in plan.partitions if (plan.target, p) not in offsets]
    if lost:
        raise TargetRefuses(
            f"the offsets of group {group(plan)} for partitions {lost} are gone (offsets.retention.minutes?): how far the "
            "replay came is unknown. Replay to an empty topic with a new plan"
        )


def replay_unit(unit: ReplayUnit) -> PartReport:
    """Replays one partition from where its group's offset stands; every transaction moves that offset."""
    plan = unit.plan
    writer = TransactionalWriter(unit.kafka, group(plan), plan.target, unit.partition)
    try:
        with Kafka(unit.kafka) as kafka:  # after the writer fenced a former run, whose offsets are now final
            done = kafka.group_offsets(group(plan))[plan.target, unit.partition]
        written, corrupt = 0, []
        for segment in plan.partitions[unit.partition]:
            if segment.until <= done:
                continue
            try:
                rows = _read(unit, segment)
            except VerificationFailed as error:
                if not unit.skip_corrupt:
                    raise
                fact("corrupt_segment_skipped", segment=segment.path, reason=error)
                corrupt.append(segment.path)
                continue
            for batch in rows.iter_batches(batch_size=TRANSACTION_RECORDS):
                wanted = select_records(
                    pa.RecordBatch.from_struct_array(batch.to_struct_array()), plan.span, plan.by, done
                )
                if wanted.num_rows:
                    writer.write(_records(wanted, plan.timestamps), wanted.column("offset")[-1].as_py() + 1)
                    written += wanted.num_rows
                    fact("progress", replay=plan.id, partition=unit.partition, records=written)
        return PartReport(written, tuple(corrupt))
    finally:
        writer.close()


def _read(unit: ReplayUnit, segment: Segment) -> pq.ParquetFile:
    path = f"{archive_path(unit.plan.cluster, unit.plan.topic)}/{segment.path}"
    return read_segment(segment, S3(unit.s3).get(path))


def _records(rows: pa.RecordBatch, timestamps: Timestamps) -> Iterator[tuple[Any, Any, list[tuple[str, Any]], int]]:
    times = rows.column("timestamp").cast(pa.int64()).to_pylist()
    columns = (rows.column(name).to_pylist() for name in ("key", "value", "headers"))
    for key, value, headers, time in zip(*columns, times, strict=True):
        pairs = [(header["key"], header["value"]) for header in headers]
        if timestamps == "now":
            yield key, value, [*pairs, (ORIGINAL_TIMESTAMP, str(time).encode())], 0
        else:
            yield key, value, pairs, time


def verify_unit(unit: ReplayUnit) -> PartVerification:
    """Compares, record for record and in order, what a partition's replay should have written with the target."""
    kept = ["key", "value", "headers"] + (["timestamp"] if unit.plan.timestamps == "original" else [])
    expected = 0

    def planned() -> Iterator[pa.RecordBatch]:
        nonlocal expected
        for segment in unit.plan.partitions[unit.partition]:
            try:
                rows = _read(unit, segment)
            except VerificationFailed:
                if unit.skip_corrupt:
                    continue
                raise
            for batch in rows.iter_batches(batch_size=TRANSACTION_RECORDS):
                wanted = select_records(
                    pa.RecordBatch.from_struct_array(batch.to_struct_array()), unit.plan.span, unit.plan.by
                )
                expected += wanted.num_rows
                yield _as_written(wanted, unit.plan.timestamps).select(kept)

    with Kafka(unit.kafka) as kafka:
        stable = kafka.offsets(unit.target)[unit.partition][1]
        written = OffsetRange(unit.partition, unit.target_since, stable)
        found = (batch.select(kept) for batch in kafka.read(unit.target, written, unit.batch.fetch_bytes))
        missing, foreign = unmatched(planned(), found)
    return PartVerification(expected, missing, foreign)


def _as_written(rows: pa.RecordBatch, timestamps: Timestamps) -> pa.RecordBatch:
    """The rows as the target shows them: with the original timestamp as a header where the record's own is new."""
    rows = rows.select(RAW_RECORD.names)
    if timestamps == "original":
        return rows
    headers = [[{"key": key, "value": value} for key, value in pairs] for _, _, pairs, _ in _records(rows, timestamps)]
    position = RAW_RECORD.get_field_index("headers")
    return rows.set_column(position, RAW_RECORD.field(position), pa.array(headers, RAW_RECORD.field(position).type))


def check_entry(entry: Mapping[str, Any]) -> None:
    """Raises what the end of a replay means for its exit code."""
    if entry["status"] == "differs":
        raise VerificationFailed(
            f"replay {entry['id']}: {entry['missing']} records are not in the target as they were archived"
        )


def summary(plan: ReplayPlan, problems: Sequence[str]) -> dict[str, Any]:
    """What a plan is, for a person who decides about it."""
    return {
        "digest": plan.id,
        "topic": f"{plan.topic} ({plan.topic_id})",
        "span": f"{plan.span} by {plan.by}",
        "target": f"{plan.target}, timestamps {plan.timestamps}",
        "partitions": ", ".join(map(str, plan.partitions)),
        "segments": len(plan.segments),
        "records": f"{'' if plan.exact else 'at most '}{plan.most_records:,}",
        "bytes in the archive": sum(segment.bytes for segment in plan.segments),
        "warnings": "\n".join(problems) or "none",
    }
