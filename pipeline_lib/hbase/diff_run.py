"""Comparison of a topic's table between two of Prod, Loki and the archive, as units of work.

First each side's rows are read once and digested; then only the slots that differ are read again, row by row. A
difference that a write under way makes is gone by the second reading.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.diff import (
    FIRST_TIME,
    Difference,
    Differences,
    Range,
    Slots,
    differing,
    joined,
    overlap,
    span_ranges,
    text_of,
    unequal,
)
from pipeline_lib.hbase.sides import (
    ArchiveSide,
    Part,
    Side,
    SideName,
    open_side,
    part_of,
    read_part,
    read_values,
    time_chunks,
)
from pipeline_lib.log import fact
from pipeline_lib.timespan import parse_time, to_ms
from pipeline_lib.topics import Topic

T = TypeVar("T")
R = TypeVar("R")

NEWEST_MS = 300_000
"""Events of the newest five minutes are left out: each cluster is served by itself, so one is always a little ahead."""
SLOTS = 1 << 16
"""The most slots of a side, about 15 MB; of a table of 5,000,000 rows a slot has about a hundred."""
CHUNK_RECORDS = 50_000
"""About the most archived records whose rows a task holds: records of one key can lie anywhere in a partition."""


class Runner(Protocol):
    """Runs work on every unit and returns the results in order."""

    def __call__(self, work: Callable[[T], R], units: Sequence[T], /) -> list[R]: ...


@dataclass(frozen=True)
class Comparison:
    """Two sides and the event-time span [since, until) (ms) in which they are compared."""

    topic: str
    table: str
    left: Side
    right: Side
    since_ms: int
    until_ms: int
    salts: tuple[bytes, ...]

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """The span, cut so that a chunk's archived rows fit into memory; whole where no side is the archive."""
        held = [
            (*segment.event_times, segment.records)
            for side in (self.left, self.right)
            if isinstance(side, ArchiveSide)
            for segment in side.segments
            if segment.event_times
        ]
        return time_chunks(held, self.since_ms, self.until_ms, CHUNK_RECORDS)

    def as_dict(self) -> dict[str, Any]:
        since = "the first" if self.since_ms == FIRST_TIME else text_of(self.since_ms)
        span = f"{since}/{text_of(self.until_ms)} by event_time"
        names = {"left": self.left.name, "right": self.right.name}
        return {"topic": self.topic, "table": self.table, "span": span, **names}


@dataclass(frozen=True)
class Pair:
    """The same rows of both sides."""

    left: Part
    right: Part


@dataclass(frozen=True)
class Report:
    """What was compared: the rows of each side, and what is not the same."""

    left_rows: int
    right_rows: int
    differences: Differences

    def as_dict(self) -> dict[str, Any]:
        found = self.differences
        counts = {name: getattr(found, name) for name in ("only_in_left", "only_in_right", "different")}
        return {"left_rows": self.left_rows, "right_rows": self.right_rows, **counts}


def span_ms(since: str | None, until: str | None) -> tuple[int, int]:
    """The event-time span [since, until) (ms) of the options, without the newest minutes.

    Raises:
        ConfigError: nothing is left of it, or a text is no time.
    """
    first = to_ms(parse_time(since)) if since else FIRST_TIME
    settled = time.time_ns() // 1_000_000 - NEWEST_MS
    last = min(settled, to_ms(parse_time(until))) if until else settled
    if first >= last:
        raise ConfigError("the span holds no event older than five minutes: newer ones are not compared")
    return first, last


def open_comparison(
    config: Config, topic: Topic, version: str, names: tuple[SideName, SideName], since_ms: int, until_ms: int
) -> Comparison:
    """The comparison of two sides in a span of event time.

    Raises:
        ConfigError: both sides are one cluster, or a side or a version does not exist.
        ServerUnavailable: a cluster does not answer.
        VerificationFailed: the archive's commit chain is broken.
    """
    mapping = mapping_of(topic)
    table = mapping.version(version).table
    _check_distinct(config, names)
    left, right = (open_side(config, name, topic, version) for name in names)
    return Comparison(topic.name, table, left, right, since_ms, until_ms, tuple(mapping.salts))


def _check_distinct(config: Config, names: tuple[SideName, SideName]) -> None:
    if names[0] == names[1]:
        raise ConfigError(f"{names[0]} would be compared with itself: name two different sides")
    ids = {}
    for name in names:
        if name != "archive":
            with open_cluster(config, name) as cluster:
                ids[name] = cluster.cluster_id()
    if len(ids) > len(set(ids.values())):
        raise ConfigError(f"hbase.prod and hbase.loki are one cluster, {ids['prod']}: it would be compared with itself")


def digest_part(part: Part, limit: int) -> Slots:
    with ExitStack() as opened:
        return Slots(limit).add(read_values(part, opened))


def read_differences(pair: Pair) -> Iterator[Difference]:
    with ExitStack() as opened:
        yield from unequal(read_part(pair.left, opened), read_part(pair.right, opened))


def count_pair(pair: Pair) -> Differences:
    return Differences().add(read_differences(pair))


def digest_sides(comparison: Comparison, run_units: Runner) -> tuple[Slots, Slots]:
    """The slots of both sides, after one reading of each."""
    span = (comparison.since_ms, comparison.until_ms)
    parts: list[tuple[int, Part]] = []
    for number, side in enumerate((comparison.left, comparison.right)):
        if isinstance(side, ArchiveSide):
            pieces = [(chunk, span_ranges(comparison.salts, *chunk)) for chunk in comparison.chunks]
        else:
            pieces = [(span, span_ranges([salt], *span)) for salt in comparison.salts]
        parts += [(number, part_of(side, ranges, chunk)) for chunk, ranges in pieces]
    parts.sort(key=lambda each: each[1].ranges[0])  # both sides at once: neither server waits for the other
    most = max(sum(number == side for number, _ in parts) for side in (0, 1))
    found = run_units(partial(digest_part, limit=max(1, SLOTS // most)), [part for _, part in parts])
    by_side = [[slots for (number, _), slots in zip(parts, found, strict=True) if number == side] for side in (0, 1)]
    return joined(by_side[0], SLOTS), joined(by_side[1], SLOTS)


def differing_pairs(comparison: Comparison, found: Sequence[Range]) -> list[Pair]:
    """Units that read the rows of differing places: a chunk's where the archive is a side, else those of a salt."""
    sides = (comparison.left, comparison.right)
    if any(isinstance(side, ArchiveSide) for side in sides):
        pieces = [(chunk, overlap(found, span_ranges(comparison.salts, *chunk))) for chunk in comparison.chunks]
    else:
        span = (comparison.since_ms, comparison.until_ms)
        pieces = [(span, overlap(found, span_ranges([salt], *span))) for salt in comparison.salts]
    return [Pair(*(part_of(side, ranges, chunk) for side in sides)) for chunk, ranges in pieces if ranges]


def diff(comparison: Comparison, run_units: Runner) -> Report:
    """Compares the two sides.

    Raises:
        ConfigError: a cluster does not have the table.
        ServerUnavailable: a cluster does not answer.
        VerificationFailed: a segment of the archive is missing or corrupt.
    """
    left, right = digest_sides(comparison, run_units)
    pairs = differing_pairs(comparison, differing(left, right))
    fact("digested", table=comparison.table, left=left.rows, right=right.rows, differing=len(pairs))
    whole = Differences()
    for part in run_units(count_pair, pairs):
        whole.join(part)
    return Report(left.rows, right.rows, whole)
