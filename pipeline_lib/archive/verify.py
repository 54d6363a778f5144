"""Verification of the archive, the pure half: commits against objects, segments against commits and against Kafka."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_lib.archive.commits import ArchiveCommit, check_contiguous, read_chain
from pipeline_lib.archive.segment import SEGMENT, Segment, record_bytes
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.records.offsets import OffsetRange

_SEGMENT_NAME = re.compile(r"topic_id=[^/]+/partition=\d+/\d{20}-\d{20}-[0-9a-f]{64}-[0-9a-f]+\.parquet")


@dataclass(frozen=True)
class Problem:
    """A difference. `where` is an object's path relative to the table, or a part of it in words."""

    where: str
    problem: str


def check_commits(texts: Sequence[str], newest: int | None) -> tuple[list[ArchiveCommit], list[Problem]]:
    """The commits that can be read, and what is wrong with them or with their order."""
    commits, problems = [], []
    for number, text in enumerate(texts, start=1):
        try:
            commits.append(ArchiveCommit.from_json(text))
        except (VerificationFailed, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(Problem(f"commit {number}", f"cannot be read: {error!r}"))
    if problems:
        return commits, problems
    for check in (lambda: read_chain(texts, newest), lambda: check_contiguous(commits)):
        try:
            check()
        except VerificationFailed as error:
            problems.append(Problem("commit chain", str(error)))
        except KeyError as error:
            problems.append(Problem("commit chain", f"a segment's partition {error} is in no range of its commit"))
    problems += [
        Problem(f"commit {commit.number}", f"gap [{gap.since}, {gap.until}) of partition {gap.partition} is no gap")
        for commit in commits
        for gap in commit.gaps
        if not _is_gap(gap, commit)
    ]
    return commits, problems


def _is_gap(gap: OffsetRange, commit: ArchiveCommit) -> bool:
    """Whether the offsets lie within what the commit covers, and in none of its segments."""
    since, until = commit.covers.get(gap.partition, (0, 0))
    own = (segment for segment in commit.segments if segment.partition == gap.partition)
    return since <= gap.since < gap.until <= until and not any(s.since < gap.until and gap.since < s.until for s in own)


def check_progress(commits: Iterable[ArchiveCommit], progress: Mapping[tuple[str, int], int]) -> Iterator[Problem]:
    """The end of the last range of each (topic id, partition) is where the next batch will start."""
    ends = {(commit.topic_id, p): until for commit in commits for p, (_, until) in commit.covers.items()}
    for key, until in ends.items():
        if progress.get(key) != until:
            where = f"topic id {key[0]}, partition {key[1]}"
            yield Problem(where, f"commits end at offset {until}, the application transaction at {progress.get(key)}")


def check_files(
    segments: Iterable[Segment], live: Sequence[Mapping[str, Any]], objects: Mapping[str, int]
) -> tuple[list[Problem], list[str]]:
    """Commits, Delta's snapshot and the store's listing name the same files, with the same sizes and statistics.

    Args:
        segments: of all commits.
        live: the snapshot's files, as ArchiveTable.live_files tells them.
        objects: bytes of each object below the table, by path, without those of the log.

    Returns:
        The problems, and the leftovers: objects that no commit names but that are named like segments. A killed run
        leaves such, and a running one has them until it commits; they are no difference, `lode vacuum` removes them.
    """
    named = {segment.path: segment for segment in segments}
    found = {str(entry["path"]): entry for entry in live}
    problems, leftovers = [], []
    for path, segment in named.items():
        if path not in found:
            problems.append(Problem(path, "is in a commit, but is no live file of the Delta table"))
        elif wrong := _wrong_statistics(segment, found[path]):
            problems.append(Problem(path, f"Delta's {wrong} differ from the commit's"))
        if path not in objects:
            problems.append(Problem(path, "object is missing"))
        elif objects[path] != segment.bytes:
            problems.append(Problem(path, f"object has {objects[path]} bytes instead of {segment.bytes}"))
    problems += [
        Problem(path, "is a live file of the Delta table, but no Lode commit names it") for path in found.keys() - named
    ]
    for path in sorted(objects.keys() - named.keys() - found.keys()):
        if _SEGMENT_NAME.fullmatch(path):
            leftovers.append(path)
        else:
            problems.append(Problem(path, "extra object: no commit names it and no run of Lode writes such a name"))
    return problems, leftovers


def _wrong_statistics(segment: Segment, entry: Mapping[str, Any]) -> str:
    times = segment.event_times or (None, None)
    expected = {
        "size_bytes": segment.bytes,
        "num_records": segment.records,
        "min.offset": segment.offsets[0],
        "max.offset": segment.offsets[1],
        "min.timestamp": segment.timestamps[0],
        "max.timestamp": segment.timestamps[1],
        "min.event_time": times[0],
        "max.event_time_max": times[1],
    }
    return ", ".join(name for name, value in expected.items() if _ms(entry.get(name)) != value)


def _ms(value: Any) -> Any:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value


def sampled(segments: Sequence[Segment], share: float) -> list[Segment]:
    """About that share of the segments, the same ones every time, and at least one; all of them for 1."""
    if share >= 1:
        return list(segments)
    ranked = sorted(segments, key=lambda segment: hashlib.sha256(segment.path.encode()).digest())
    chosen = {segment.path for segment in ranked[: max(1, round(len(ranked) * share))]}
    return [segment for segment in segments if segment.path in chosen]


def check_segment(segment: Segment, data: bytes | None) -> tuple[pa.Table | None, list[str]]:
    """The segment's rows, where its bytes are those that were committed, and what differs from the commit."""
    if data is None:
        return None, ["object is missing"]
    if len(data) != segment.bytes:
        return None, [f"object has {len(data)} bytes instead of {segment.bytes}"]
    if hashlib.sha256(data).hexdigest() != segment.sha256:
        return None, ["sha256 of the bytes differs from the commit's"]
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read().combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        return None, [f"is not readable as Parquet: {error}"]
    if not table.schema.equals(SEGMENT):
        return None, ["has another schema than a segment"]
    return table, list(_check_rows(segment, table))


def _check_rows(segment: Segment, table: pa.Table) -> Iterator[str]:
    if not segment.path.startswith(f"topic_id={segment.topic_id}/partition={segment.partition}/"):
        yield "lies in the folder of another partition"
    if table.num_rows != segment.records:
        yield f"has {table.num_rows} records instead of {segment.records}"
    if not table.num_rows:
        return
    offsets = table["offset"].to_numpy()
    if (np.diff(offsets) <= 0).any():
        yield "offsets do not increase strictly"
    if offsets.min() < segment.since or offsets.max() >= segment.until:
        yield f"has offsets outside [{segment.since}, {segment.until})"
    for name, low, high, expected in (
        ("offset", "offset", "offset", segment.offsets),
        ("timestamp", "timestamp", "timestamp", segment.timestamps),
        ("event_time", "event_time", "event_time_max", segment.event_times),
    ):
        least = pc.min(table[low]).cast(pa.int64()).as_py()
        most = pc.max(table[high]).cast(pa.int64()).as_py()
        if (None if least is None else (least, most)) != expected:
            yield f"has {name} from {least} to {most} instead of {expected}"
    largest = max(pc.max(record_bytes(batch)).as_py() for batch in table.to_batches())
    if largest != segment.largest_record:
        yield f"largest record has {largest} bytes instead of {segment.largest_record}"


def compare_records(
    archived: pa.Table, kafka: Iterable[pa.RecordBatch], span: OffsetRange, subset: bool
) -> tuple[int, list[str]]:
    """How many records are the same in Kafka and in the archive within `span`, and what differs.

    Args:
        subset: the topic is compacted: Kafka may have fewer records, but none that is different.
    """
    rows = archived.select(RAW_RECORD.names)
    offsets = rows["offset"].to_numpy()
    expected = int(((offsets >= span.since) & (offsets < span.until)).sum())
    same, problems = 0, []
    for batch in kafka:
        wanted = batch.column("offset").to_numpy()
        at = np.searchsorted(offsets, wanted)
        present = np.zeros(len(wanted), bool)
        present[at < len(offsets)] = offsets[at[at < len(offsets)]] == wanted[at < len(offsets)]
        if not present.all():
            problems.append(f"{int((~present).sum())} records of Kafka are missing, the first at {wanted[~present][0]}")
        theirs = pa.Table.from_batches([batch]).filter(pa.array(present))
        ours = rows.take(pa.array(at[present]))
        equal = _equal_rows(ours, theirs)
        same += int(equal.sum())
        if not equal.all():
            problems.append(f"{int((~equal).sum())} records differ, the first at {wanted[present][~equal][0]}")
    if not subset and not problems and same < expected:
        problems.append(f"{expected - same} archived records are not in Kafka")
    return same, problems


def _equal_rows(ours: pa.Table, theirs: pa.Table) -> Any:
    if ours.equals(theirs):
        return np.ones(ours.num_rows, bool)
    return np.array([ours.slice(i, 1).equals(theirs.slice(i, 1)) for i in range(ours.num_rows)], bool)


def empty_ranges(commits: Iterable[ArchiveCommit]) -> Iterator[tuple[str, OffsetRange]]:
    """(topic id, offsets) that were read but hold no record by the commit: neither in a segment nor in a gap."""
    for commit in commits:
        for partition, (at, until) in commit.covers.items():
            parts = [*commit.gaps, *(OffsetRange(s.partition, s.since, s.until) for s in commit.segments)]
            for part in sorted((p for p in parts if p.partition == partition), key=lambda p: p.since):
                if at < part.since:
                    yield commit.topic_id, OffsetRange(partition, at, part.since)
                at = max(at, part.until)
            if at < until:
                yield commit.topic_id, OffsetRange(partition, at, until)
