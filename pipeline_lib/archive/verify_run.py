"""Verification of the archive: every segment is read again, and compared with Kafka while that has the same offsets."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from pipeline_lib.archive.commits import ArchiveCommit, chain_app_id
from pipeline_lib.archive.log import LOG, find_archive, kafka_if_up, read_log
from pipeline_lib.archive.segment import Segment
from pipeline_lib.archive.verify import (
    Problem,
    check_commits,
    check_files,
    check_progress,
    check_segment,
    compare_records,
    empty_ranges,
    sampled,
)
from pipeline_lib.batches.progress import app_id
from pipeline_lib.config import Config, KafkaSettings, S3Settings
from pipeline_lib.errors import ConfigError, CorruptBatch, LodeError
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange

UNIT_SEGMENTS = 8


@dataclass(frozen=True)
class VerifyUnit:
    """Some segments of one partition; `info` is the topic where Kafka still has it under the same id."""

    kafka: KafkaSettings
    s3: S3Settings
    path: str
    segments: tuple[Segment, ...]
    info: TopicInfo | None
    compacted: bool
    fetch_bytes: int


@dataclass
class VerifyReport:
    """What was verified. `compared` counts the records that were found the same in Kafka."""

    topic: str
    commits: int = 0
    segments: int = 0
    verified: int = 0
    records: int = 0
    bytes: int = 0
    compared: int = 0
    leftovers: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Checked:
    verified: int = 0
    records: int = 0
    bytes: int = 0
    compared: int = 0
    problems: list[Problem] = field(default_factory=list)


Runner = Callable[[Callable[[VerifyUnit], Checked], list[VerifyUnit]], list[Checked]]


def verify_unit(unit: VerifyUnit) -> Checked:
    """Reads the unit's segments, one at a time, and the same offsets of Kafka."""
    store, checked = S3(unit.s3), Checked()
    with Kafka(unit.kafka) if unit.info else nullcontext() as kafka:
        for segment in unit.segments:
            table, problems = check_segment(segment, store.get(f"{unit.path}/{segment.path}"))
            checked.verified += 1
            checked.bytes += segment.bytes
            if table is not None:
                checked.records += table.num_rows
            if table is not None and kafka and unit.info:
                span = OffsetRange(segment.partition, segment.since, segment.until)
                same, more = _compare(kafka, unit, unit.info, span, table)
                checked.compared += same
                problems += more
            checked.problems += [Problem(segment.path, problem) for problem in problems]
    return checked


def _compare(
    kafka: Kafka, unit: VerifyUnit, info: TopicInfo, span: OffsetRange, table: pa.Table
) -> tuple[int, list[str]]:
    """As compare_records, for the offsets that Kafka still has; records that expire meanwhile are left out."""
    before = -1
    while True:
        earliest, stable = kafka.offsets(info)[span.partition]
        if stable < span.until:
            return 0, [f"Kafka's partition ends at offset {stable} already: Kafka lost its end"]
        held = OffsetRange(span.partition, max(span.since, earliest), span.until)
        if held.since >= held.until:
            return 0, []
        try:
            return compare_records(table, kafka.read(info, held, unit.fetch_bytes), held, unit.compacted)
        except CorruptBatch as error:
            return 0, [f"Kafka's own records are damaged: {error}"]
        except LodeError:
            if earliest == before:
                raise
            before = earliest


def verify_archive(config: Config, topic: str, share: float, run_units: Runner) -> VerifyReport:
    """Verifies a topic's archive: the log, the commit chain, the files, and the segments or a share of them.

    Raises:
        ConfigError: there is no archive of the topic.
    """
    report, store = VerifyReport(topic), S3(config.s3)
    with kafka_if_up(config.kafka) as kafka:
        path = find_archive(config, kafka, topic)
        log = read_log(store, path)
        report.problems += [Problem(where, problem) for where, problem in log.problems]
        if log.problems:
            report.notes.append("the log is damaged: the table was not opened and its segments were not read")
            return report
        table = ArchiveTable(config.s3, path)
        if not table.exists:
            raise ConfigError(f"topic {topic!r} has no archive: s3://{config.s3.bucket}/{path} is no table")
        commits, problems = check_commits(table.commits(), table.progress({0: chain_app_id()}).get(0))
        report.problems += problems
        _check_table(report, store, table, path, commits)
        info, compacted = _topic(kafka, topic, report)
        segments = [segment for commit in commits for segment in commit.segments]
        units = [
            VerifyUnit(config.kafka, config.s3, path, part, info if info and info.topic_id == topic_id else None,
                       compacted, config.batch.fetch_bytes)
            for topic_id, part in _units(sampled(segments, share))
        ]  # fmt: skip
        fact("verifying", topic=topic, segments=sum(len(unit.segments) for unit in units), of=len(segments))
        for checked in run_units(verify_unit, units):
            _add(report, checked)
        if kafka and info:
            _check_empty(report, kafka, info, commits, config.batch.fetch_bytes)
    report.problems = list(dict.fromkeys(report.problems))
    return report


def _check_table(
    report: VerifyReport, store: S3, table: ArchiveTable, path: str, commits: Sequence[ArchiveCommit]
) -> None:
    keys = {(commit.topic_id, partition) for commit in commits for partition in commit.covers}
    progress = {key: at for key in keys for at in table.progress({0: app_id(*key)}).values()}
    report.problems += check_progress(commits, progress)
    stored = {entry.key.removeprefix(f"{path}/"): entry.bytes for entry in store.list(f"{path}/")}
    objects = {name: size for name, size in stored.items() if not name.startswith(LOG)}
    segments = [segment for commit in commits for segment in commit.segments]
    problems, leftovers = check_files(segments, table.live_files(), objects)
    report.problems += problems
    report.commits, report.segments, report.leftovers = len(commits), len(segments), len(leftovers)


def _topic(kafka: Kafka | None, topic: str, report: VerifyReport) -> tuple[TopicInfo | None, bool]:
    if not kafka:
        report.notes.append("Kafka does not answer: nothing was compared with it")
        return None, False
    try:
        info = kafka.describe(topic)
    except ConfigError:
        report.notes.append("Kafka has no such topic any more: nothing was compared with it")
        return None, False
    return info, "compact" in kafka.topic_settings(topic).get("cleanup.policy", "")


def _units(segments: list[Segment]) -> list[tuple[str, tuple[Segment, ...]]]:
    ordered = sorted(segments, key=lambda segment: (segment.topic_id, segment.partition, segment.since))
    units = []
    for (topic_id, _), group in groupby(ordered, key=lambda segment: (segment.topic_id, segment.partition)):
        part = tuple(group)
        units += [(topic_id, part[at : at + UNIT_SEGMENTS]) for at in range(0, len(part), UNIT_SEGMENTS)]
    return units


def _add(report: VerifyReport, checked: Checked) -> None:
    report.verified += checked.verified
    report.records += checked.records
    report.bytes += checked.bytes
    report.compared += checked.compared
    report.problems += checked.problems


def _check_empty(
    report: VerifyReport, kafka: Kafka, info: TopicInfo, commits: Sequence[ArchiveCommit], fetch_bytes: int
) -> None:
    """Ranges that were committed without a record must have none in Kafka either."""
    bounds = kafka.offsets(info)
    for topic_id, span in empty_ranges(commits):
        earliest, stable = bounds.get(span.partition, (0, 0))
        held = OffsetRange(span.partition, max(span.since, earliest), min(span.until, stable))
        if topic_id != info.topic_id or held.since >= held.until:
            continue
        records = sum(batch.num_rows for batch in kafka.read(info, held, fetch_bytes))
        if records:
            where = f"partition {span.partition}, offsets [{span.since}, {span.until})"
            report.problems.append(Problem(where, f"Kafka has {records} records, but no segment or gap covers them"))
