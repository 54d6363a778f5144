"""The loop of every job that follows Kafka: plan a batch, write it, commit it with its offsets, and again."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pipeline_lib.batches.progress import BatchPlan, app_id, plan_batch
from pipeline_lib.config import BatchSettings, Config
from pipeline_lib.errors import DataMissing, LodeError, ServerUnavailable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange
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
    """What a run made visible, summed over its batches; `rows` are the counts that its stage keeps, by their name."""

    topic: str
    topic_id: str
    batches: int = 0
    bytes: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    gaps: list[OffsetRange] = field(default_factory=list)

    @property
    def gap_text(self) -> str:
        return ", ".join(f"partition {gap.partition}: [{gap.since}, {gap.until})" for gap in self.gaps)

    def check_gaps(self) -> None:
        """Raises DataMissing where Kafka no longer had records that the run should have read."""
        if self.gaps:
            raise DataMissing(f"{self.topic}: Kafka no longer had offsets of {self.gap_text}")

    def as_dict(self) -> dict[str, Any]:
        values = {"topic": self.topic, "topic_id": self.topic_id, "batches": self.batches, "bytes": self.bytes}
        return {**values, **self.rows, "gaps": self.gap_text}


@dataclass(frozen=True)
class Source:
    """The topic that a run reads, on its cluster."""

    cluster: str
    info: TopicInfo


@dataclass(frozen=True)
class Written:
    """What one batch made visible."""

    bytes: int
    rows: Mapping[str, int]


class OpenTable(Protocol):
    """A stage's table at the moment when a batch is planned, to be committed to on that version."""

    def progress(self, app_ids: Mapping[int, str]) -> dict[int, int]:
        """Next offset of each partition that was ever committed."""

    def write(self, source: Source, plan: BatchPlan, moves: Mapping[str, int]) -> Written:
        """Writes the plan's records and makes them visible, in one commit that also moves progress.

        Raises:
            LostRace: a concurrent run committed first; nothing of this batch is visible.
        """


class Stage(Protocol):
    """What follows Kafka: land, archive, serve."""

    @property
    def name(self) -> str: ...

    @property
    def counts(self) -> tuple[str, ...]:
        """The names of the counts in its `Written.rows`."""

    def open(self, source: Source) -> OpenTable: ...


def run_batches(config: Config, topic: str, limits: Limits, stage: Stage) -> RunReport:
    """Brings what Kafka has and the stage has not, batch by batch, up to now or `limits.until`.

    Raises:
        LostRace: a concurrent run committed first; nothing of this batch is visible.
        LodeError: records expired before they were read, and the run is strict.
    """
    with Kafka(config.kafka) as kafka:
        info = kafka.describe(topic)
        source = Source(kafka.cluster_id(), info)
        report = RunReport(topic, info.topic_id, rows=Counter(dict.fromkeys(stage.counts, 0)))
        ends = read_ends(kafka, info, limits.until)
        complete = False
        while not complete:
            table = stage.open(source)
            progress = table.progress({p: app_id(info.topic_id, p) for p in info.partitions})
            plan = plan_next(kafka, info, progress, ends, config.batch, limits)
            if not plan.covers:
                fact("nothing_to_do" if not report.batches else "done", stage=stage.name, topic=topic)
                break
            offsets = sum(r.until - r.since for r in plan.ranges)
            fact("planned", stage=stage.name, topic=topic, batch=report.batches + 1, offsets=offsets)
            moves = {app_id(info.topic_id, p): until for p, until in plan.ends.items()}
            written = table.write(source, plan, moves)
            report.batches += 1
            report.bytes += written.bytes
            report.rows.update(written.rows)
            report.gaps += plan.gaps
            try:
                kafka.set_group_offsets(f"lode.{stage.name}.{topic}", topic, plan.ends)  # advisory, for lag tools
            except ServerUnavailable as error:  # what was committed stands, so the run did not fail
                fact("group_offsets_not_set", stage=stage.name, topic=topic, error=error)
            complete = plan.complete
    return report


def read_ends(kafka: Kafka, info: TopicInfo, until: datetime | None) -> dict[int, int]:
    """Where the run ends in each partition: the last stable offset, or the first record at or after `until`."""
    stable = {p: end for p, (_, end) in kafka.offsets(info).items()}
    late = {} if until is None else kafka.offsets_at(info, to_ms(until))
    return {p: min(end, late.get(p, end)) for p, end in stable.items()}


def plan_next(
    kafka: Kafka,
    info: TopicInfo,
    progress: Mapping[int, int],
    ends: Mapping[int, int],
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
        p: (now[p][0], max(end, now[p][0], min(progress.get(p, 0), now[p][1])))
        for p, end in ends.items()
    }
    within_bytes = int((limits.max_bytes or settings.max_bytes) / kafka.average_record_bytes(info, now))
    plan = plan_batch(progress, available, max(1, min(limits.max_records or settings.max_records, within_bytes)))
    for gap in plan.gaps:
        fact("gap", topic=info.name, partition=gap.partition, since=gap.since, until=gap.until)
    if plan.gaps and limits.strict:
        gaps = ", ".join(f"{gap.partition}: [{gap.since}, {gap.until})" for gap in plan.gaps)
        raise LodeError(
            f"{info.name}: Kafka no longer has offsets of partition {gaps}; without --strict they are recorded as gaps"
        )
    return plan
