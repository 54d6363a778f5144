"""The batch protocol's common half: what the next batch of a topic is, and what a run reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline_lib.config import BatchSettings
from pipeline_lib.errors import LodeError
from pipeline_lib.io.kafka import Kafka, TopicInfo
from pipeline_lib.log import fact
from pipeline_lib.progress import BatchPlan, OffsetRange, plan_batch
from pipeline_lib.timespan import to_ms


@dataclass(frozen=True)
class Limits:
    """Bounds of a run. `until` is the record time up to which it reads; None is now. `strict` stops at a gap."""

    until: datetime | None = None
    max_records: int | None = None
    max_bytes: int | None = None
    strict: bool = False


@dataclass
class RunReport:
    """What a run of land or archive did; the sums are over its batches."""

    topic: str
    topic_id: str
    batches: int = 0
    records: int = 0
    bytes: int = 0
    events: int = 0
    quarantined: int = 0
    gaps: list[OffsetRange] = field(default_factory=list)


def read_available(kafka: Kafka, info: TopicInfo, until: datetime | None) -> dict[int, tuple[int, int]]:
    """(earliest offset, end of this run) of each partition; the end is the last stable offset, or the first record
    at or after `until`."""
    available = kafka.offsets(info)
    if until is None:
        return available
    ends = kafka.offsets_at(info, to_ms(until))
    return {
        p: (earliest, max(earliest, min(stable, ends.get(p, stable)))) for p, (earliest, stable) in available.items()
    }


def plan_next(
    kafka: Kafka,
    info: TopicInfo,
    progress: Mapping[int, int],
    available: Mapping[int, tuple[int, int]],
    settings: BatchSettings,
    limits: Limits,
) -> BatchPlan:
    """The next batch within the limits; bytes are turned into offsets by the broker's average record size.

    Raises:
        LodeError: records expired before they were read, and the run is strict.
    """
    now = kafka.offsets(info)
    available = {
        # An earlier run may have read beyond this one's end: that is nothing to do, unlike a log that lost its end.
        p: (max(now[p][0], start), max(end, now[p][0], min(progress.get(p, 0), now[p][1])))
        for p, (start, end) in available.items()
    }
    within_bytes = int((limits.max_bytes or settings.max_bytes) / kafka.average_record_bytes(info))
    plan = plan_batch(progress, available, max(1, min(limits.max_records or settings.max_records, within_bytes)))
    for gap in plan.gaps:
        fact("gap", topic=info.name, partition=gap.partition, since=gap.since, until=gap.until)
    if plan.gaps and limits.strict:
        gaps = ", ".join(f"{gap.partition}: [{gap.since}, {gap.until})" for gap in plan.gaps)
        raise LodeError(
            f"{info.name}: Kafka no longer has offsets of partition {gaps}; without --strict they are recorded as gaps"
        )
    return plan


def units(plan: BatchPlan, most: int) -> list[OffsetRange]:
    """The plan's ranges as units of work for one task each."""
    return [part for span in plan.ranges for part in span.split(most)]
