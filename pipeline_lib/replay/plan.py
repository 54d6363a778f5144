"""Replay: which archived records are emitted again, and whether the target would keep them as they are.

A plan is made from the archive's commits alone and changes nothing. Its digest stands for all that it would do; the
digest is also the replay's id, so that carrying out the same plan twice is one replay, resumed or already done.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.archive.commits import ArchiveCommit, archive_cluster
from pipeline_lib.archive.segment import Segment
from pipeline_lib.errors import ConfigError
from pipeline_lib.timespan import TimeSpan

By = Literal["timestamp", "event_time"]


@dataclass(frozen=True)
class ReplayRequest:
    """Which archived records are asked for. `topic_id` chooses between topics that had the same name."""

    topic: str
    span: TimeSpan
    by: By = "timestamp"
    partitions: tuple[int, ...] = ()
    topic_id: str | None = None


@dataclass(frozen=True)
class ReplayPlan:
    """What a replay does: these segments' records of the span, in offset order, to a target.

    `target` is the sink's own description of where they go and how, as JSON values.
    """

    cluster: str
    topic: str
    topic_id: str
    span: TimeSpan
    by: By
    sink: str
    target: Mapping[str, Any]
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
            **{name: getattr(self, name) for name in ("cluster", "topic", "topic_id", "by", "sink")},
            "target": dict(self.target),
            "span": str(self.span),
            "segments": [segment.as_dict() for segment in self.segments],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReplayPlan":
        segments = tuple(Segment.from_dict(segment) for segment in values["segments"])
        span = TimeSpan.parse(*values["span"].split("/"))
        return cls(**{**values, "span": span, "segments": segments})


def plan_replay(
    path: str, commits: Iterable[ArchiveCommit], request: ReplayRequest, sink: str, target: Mapping[str, Any]
) -> ReplayPlan:
    """The plan of a request on the archive at `path`, whose commits these are. See select_segments for errors."""
    segments = select_segments(commits, request)
    return ReplayPlan(
        cluster=archive_cluster(path),
        topic=request.topic,
        topic_id=segments[0].topic_id,
        span=request.span,
        by=request.by,
        sink=sink,
        target=target,
        segments=tuple(sorted(segments, key=lambda s: (s.partition, s.since))),
    )


def select_segments(commits: Iterable[ArchiveCommit], request: ReplayRequest) -> list[Segment]:
    """The segments that may hold records of the span, by the least and greatest time in each: the first and last
    record's would lose late records.

    Raises:
        ConfigError: there are none, or topics of the same name but different ids have records in the span.
    """
    span, by, topic_id = request.span, request.by, request.topic_id
    found = [
        segment
        for commit in commits
        for segment in commit.segments
        if (topic_id is None or segment.topic_id == topic_id)
        and (not request.partitions or segment.partition in request.partitions)
        and overlaps(segment, by, span)
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


def overlaps(segment: Segment, by: By, span: TimeSpan) -> bool:
    """Whether the segment may hold records of the span."""
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
