"""S3 -> Kafka: exactly once, one transactional writer a partition."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline_lib.archive.segment import Segment
from pipeline_lib.config import Config, KafkaSettings, S3Settings
from pipeline_lib.errors import TargetRefuses
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.io.kafka_produce import TransactionalWriter
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.replay.compare import unmatched
from pipeline_lib.replay.plan import ReplayPlan
from pipeline_lib.replay.preflight import KafkaTarget, Timestamps, preflight
from pipeline_lib.replay.run import Replayed, Verified, read_planned

ORIGINAL_TIMESTAMP = "lode.timestamp"
"""The header that keeps a record's original timestamp (ms, decimal) where it is replayed with the present time."""


@dataclass(frozen=True)
class KafkaUnit:
    """One partition's part of a replay, with all that a task needs wherever it runs."""

    kafka: KafkaSettings
    s3: S3Settings
    fetch_bytes: int
    plan: ReplayPlan
    partition: int
    skip_corrupt: bool
    info: TopicInfo
    since: int  # the target's offset before the replay's first record

    @property
    def timestamps(self) -> Timestamps:
        return KafkaTarget(**self.plan.target).timestamps

    @property
    def segments(self) -> list[Segment]:
        return self.plan.partitions[self.partition]


Runner = Callable[[Callable[[KafkaUnit], Any], list[KafkaUnit]], list[Any]]


@dataclass(frozen=True)
class KafkaSink:
    """A topic as the target of a replay; `to` is another topic's name, by default the archived one's."""

    config: Config
    run_units: Runner
    to: str = ""
    timestamps: Timestamps = "original"
    name = "kafka"

    def target(self, topic: str) -> dict[str, Any]:
        with Kafka(self.config.kafka) as kafka:
            info = kafka.describe(self.to or topic)
        return asdict(KafkaTarget(info.name, info.topic_id, self.timestamps))

    def complete(self, plan: ReplayPlan) -> ReplayPlan:
        return plan

    def describe(self, plan: ReplayPlan) -> str:
        target = KafkaTarget(**plan.target)
        return f"{target.topic}, timestamps {target.timestamps}"

    def problems(self, plan: ReplayPlan) -> list[str]:
        target = KafkaTarget(**plan.target)
        with Kafka(self.config.kafka) as kafka:
            info, settings = kafka.describe(target.topic), kafka.topic_settings(target.topic)
        return preflight(plan, target, info.partitions, settings, datetime.now(UTC))

    def begin(self, plan: ReplayPlan) -> dict[str, Any]:
        """The target's ends; and the group's offsets, which each transaction will move."""
        target = KafkaTarget(**plan.target)
        with Kafka(self.config.kafka) as kafka:
            ends = {p: end for p, (_, end) in kafka.offsets(kafka.describe(target.topic)).items()}
            starts = {p: segments[0].since for p, segments in plan.partitions.items()}
            kafka.set_group_offsets(group(plan), target.topic, starts)
        return {"target_offsets": {str(p): at for p, at in ends.items()}}

    def repeatable(self, plan: ReplayPlan) -> bool:
        return False

    def check_resumable(self, plan: ReplayPlan) -> None:
        target = KafkaTarget(**plan.target)
        with Kafka(self.config.kafka) as kafka:
            if kafka.describe(target.topic).topic_id != target.topic_id:
                raise TargetRefuses(
                    f"{target.topic} was deleted and made again since this replay began: plan a new one"
                )
            offsets = kafka.group_offsets(group(plan))
        lost = [p for p in plan.partitions if (target.topic, p) not in offsets]
        if lost:
            raise TargetRefuses(
                f"the offsets of group {group(plan)} for partitions {lost} are gone (offsets.retention.minutes?): how "
                "far the replay came is unknown. Replay to an empty topic with a new plan"
            )

    def write(self, plan: ReplayPlan, begun: Mapping[str, Any], skip_corrupt: bool) -> Replayed:
        parts: list[Replayed] = self.run_units(replay_unit, self._units(plan, begun, skip_corrupt))
        return Replayed(sum(part.records for part in parts), tuple(path for part in parts for path in part.corrupt))

    def verify(self, plan: ReplayPlan, begun: Mapping[str, Any], written: Replayed, skip_corrupt: bool) -> Verified:
        parts: list[Verified] = self.run_units(verify_unit, self._units(plan, begun, skip_corrupt))
        return Verified(*(sum(values) for values in zip(*map(_values, parts), strict=True)))

    def _units(self, plan: ReplayPlan, begun: Mapping[str, Any], skip_corrupt: bool) -> list[KafkaUnit]:
        config, offsets = self.config, begun["target_offsets"]
        with Kafka(config.kafka) as kafka:
            info = kafka.describe(KafkaTarget(**plan.target).topic)
        return [
            KafkaUnit(config.kafka, config.s3, config.batch.fetch_bytes, plan, p, skip_corrupt, info, offsets[str(p)])
            for p in plan.partitions
        ]


def _values(part: Verified) -> tuple[int, int, int]:
    return part.records, part.missing, part.foreign


def group(plan: ReplayPlan) -> str:
    """The consumer group, and the prefix of the transactional ids, of a replay."""
    return f"lode.replay.{plan.id}"


def replay_unit(unit: KafkaUnit) -> Replayed:
    """Replays one partition from where its group's offset stands; every transaction moves that offset."""
    plan, topic = unit.plan, unit.info.name
    writer = TransactionalWriter(unit.kafka, group(plan), topic, unit.partition)
    with Kafka(unit.kafka) as kafka:  # after the writer fenced a former run, whose offsets are now final
        done = kafka.group_offsets(group(plan))[topic, unit.partition]
    written, corrupt = 0, []
    for rows in read_planned(S3(unit.s3), plan, unit.segments, unit.skip_corrupt, done):
        if isinstance(rows, Segment):
            corrupt.append(rows.path)
            continue
        writer.write(_records(rows, unit.timestamps), rows.column("offset")[-1].as_py() + 1)
        written += rows.num_rows
        fact("progress", replay=plan.id, partition=unit.partition, records=written)
    return Replayed(written, tuple(corrupt))


def _records(rows: pa.RecordBatch, timestamps: Timestamps) -> Iterator[tuple[Any, Any, list[tuple[str, Any]], int]]:
    times = rows.column("timestamp").cast(pa.int64()).to_pylist()
    columns = (rows.column(name).to_pylist() for name in ("key", "value", "headers"))
    for key, value, headers, time in zip(*columns, times, strict=True):
        pairs = [(header["key"], header["value"]) for header in headers]
        if timestamps == "now":
            yield key, value, [*pairs, (ORIGINAL_TIMESTAMP, str(time).encode())], 0
        else:
            yield key, value, pairs, time


def verify_unit(unit: KafkaUnit) -> Verified:
    """Compares, record for record and in order, what a partition's replay should have written with the target."""
    kept = ["key", "value", "headers"] + (["timestamp"] if unit.timestamps == "original" else [])
    expected = 0

    def planned() -> Iterator[pa.RecordBatch]:
        nonlocal expected
        for rows in read_planned(S3(unit.s3), unit.plan, unit.segments, unit.skip_corrupt):
            if not isinstance(rows, Segment):
                expected += rows.num_rows
                yield _as_written(rows, unit.timestamps).select(kept)

    with Kafka(unit.kafka) as kafka:
        stable = kafka.offsets(unit.info)[unit.partition][1]
        written = OffsetRange(unit.partition, unit.since, stable)
        found = (batch.select(kept) for batch in kafka.read(unit.info, written, unit.fetch_bytes))
        missing, foreign = unmatched(planned(), found)
    return Verified(expected, missing, foreign)


def _as_written(rows: pa.RecordBatch, timestamps: Timestamps) -> pa.RecordBatch:
    """The rows as the target shows them: with the original timestamp as a header where the record's own is new."""
    rows = rows.select(RAW_RECORD.names)
    if timestamps == "original":
        return rows
    headers = [[{"key": key, "value": value} for key, value in pairs] for _, _, pairs, _ in _records(rows, timestamps)]
    position = RAW_RECORD.get_field_index("headers")
    return rows.set_column(position, RAW_RECORD.field(position), pa.array(headers, RAW_RECORD.field(position).type))
