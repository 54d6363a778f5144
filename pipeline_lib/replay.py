"""Replay: which archived records are emitted again, and whether the target would keep them as they are.

A plan is made from the archive's commits alone and changes nothing. Its digest stands for all that it would do; the
digest is also the replay's id, so that carrying out the same plan twice is one replay, resumed or already done.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.archive import ArchiveCommit
from pipeline_lib.errors import ConfigError
from pipeline_lib.segment import Segment
from pipeline_lib.timespan import TimeSpan

By = Literal["timestamp", "event_time"]
Timestamps = Literal["original", "now"]

ORIGINAL_TIMESTAMP = "lode.timestamp"
"""The header that keeps a record's original timestamp (ms, decimal) where it is replayed with the present time."""


@dataclass(frozen=True)
class ReplayPlan:
    """What a replay does: these segments' records of the span, in offset order, to the same partitions of the target."""

    cluster: str
    topic: str
    topic_id: str
    span: TimeSpan
    by: By
    timestamps: Timestamps
    target: str
    target_id: str
    segments: tuple[Segment, ...]

    @property
    def id(self) -> str:
        """The plan's digest: 16 hex digits that change with anything that the replay would do."""
        values = self.to_dict()
        values["segments"] = [segment.sha256 for segment in self.segments]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def partitions(self) -> dict[int, list[Segment]]:
        """The segments of each partition, by offset."""
        found: dict[int, list[Segment]] = {}
        for segment in sorted(self.segments, key=lambda s: (s.partition, s.since)):
            found.setdefault(segment.partition, []).append(segment)
        return found

    @property
    def most_records(self) -> int:
        """The records of the segments; those of the span are fewer where a segment reaches beyond it."""
        return sum(segment.records for segment in self.segments)

    @property
    def exact(self) -> bool:
        """Whether every segment lies within the span, so that most_records is the number of records."""
        return all(_times(s, self.by) is not None and _within(s, self.by, self.span) for s in self.segments)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("cluster", "topic", "topic_id", "by", "timestamps", "target")},
            "target_id": self.target_id,
            "span": str(self.span),
            "segments": [segment.as_dict() for segment in self.segments],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReplayPlan":
        segments = tuple(Segment.from_dict(segment) for segment in values["segments"])
        span = TimeSpan.parse(*values["span"].split("/"))
        return cls(**{**values, "span": span, "segments": segments})


def select_segments(
    commits: Iterable[ArchiveCommit],
    span: TimeSpan,
    by: By,
    partitions: Sequence[int] | None,
    topic_id: str | None,
) -> list[Segment]:
    """The segments that may hold records of the span, by the least and greatest time in each: the first and last
    record's would lose late records.

    Raises:
        ConfigError: there are none, or topics of the same name but different ids have records in the span.
    """
    found = [
        segment
        for commit in commits
        for segment in commit.segments
        if (topic_id is None or segment.topic_id == topic_id)
        and (not partitions or segment.partition in partitions)
        and _overlaps(segment, by, span)
    ]
    ids = sorted({segment.topic_id for segment in found})
    if not found:
        raise ConfigError(
            f"the archive holds no records with {by} in {span}" + (f" of topic id {topic_id}" if topic_id else "")
        )
    if len(ids) > 1:
        raise ConfigError(
            f"topics of this name but different ids have records in {span}: choose with --topic-id: {', '.join(ids)}"
        )
    return found


def _times(segment: Segment, by: By) -> tuple[int, int] | None:
    return segment.timestamps if by == "timestamp" else segment.event_times


def _overlaps(segment: Segment, by: By, span: TimeSpan) -> bool:
    times = _times(segment, by)
    return times is not None and times[0] < span.until_ms and times[1] >= span.since_ms


def _within(segment: Segment, by: By, span: TimeSpan) -> bool:
    times = _times(segment, by)
    return times is not None and span.since_ms <= times[0] and times[1] < span.until_ms


def select_records(rows: pa.RecordBatch, span: TimeSpan, by: By, since_offset: int = 0) -> pa.RecordBatch:
    """The SEGMENT rows of the span, from an offset on. By event time a record counts if any of its events does."""
    first, last = ("timestamp", "timestamp") if by == "timestamp" else ("event_time", "event_time_max")
    kind = rows.schema.field("timestamp").type
    until, since = (pa.scalar(int(ms), pa.int64()).cast(kind) for ms in (span.until_ms, span.since_ms))
    inside = pc.and_(pc.less(rows.column(first), until), pc.greater_equal(rows.column(last), since))
    wanted = pc.and_(pc.fill_null(inside, False), pc.greater_equal(rows.column("offset"), since_offset))
    return rows.filter(wanted)


def unmatched(expected: Iterator[pa.RecordBatch], found: Iterator[pa.RecordBatch]) -> tuple[int, int]:
    """How many expected records do not stand in `found` in the expected order, and how many found ones are others'.

    Both are streams of rows with the same columns. Runs of equal rows are compared in bulk.
    """
    foreign = 0
    right: pa.RecordBatch | None = None
    for left in expected:
        while left.num_rows:
            while right is None or not right.num_rows:
                right = next(found, None)
                if right is None:
                    rest = left.num_rows + sum(batch.num_rows for batch in expected)
                    return rest, foreign
            size = min(left.num_rows, right.num_rows)
            if left.slice(0, size).equals(right.slice(0, size)):
                left, right = left.slice(size), right.slice(size)
            elif left.slice(0, 1).equals(right.slice(0, 1)):
                same = _equal_prefix(left, right, size)
                left, right = left.slice(same), right.slice(same)
            else:
                foreign += 1
                right = right.slice(1)
    return 0, foreign + (right.num_rows if right is not None else 0) + sum(batch.num_rows for batch in found)


def _equal_prefix(left: pa.RecordBatch, right: pa.RecordBatch, size: int) -> int:
    """The number of equal leading rows, by bisection; at least one row is equal and not all of `size` are."""
    low, high = 1, size
    while high - low > 1:
        middle = (low + high) // 2
        if left.slice(0, middle).equals(right.slice(0, middle)):
            low = middle
        else:
            high = middle
    return low


def started_entry(plan: ReplayPlan, ends: Mapping[int, int], now: datetime) -> dict[str, Any]:
    """The ledger's entry of a replay that begins; `ends` are the target's offsets before its first record."""
    return {
        "format": 1,
        "id": plan.id,
        "status": "started",
        "sink": "kafka",
        "topic": plan.topic,
        "started": now.astimezone(UTC).isoformat(),
        "target_offsets": {str(p): at for p, at in ends.items()},
        "plan": plan.to_dict(),
    }
