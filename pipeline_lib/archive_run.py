"""Kafka -> S3: the archive's batch, from plan to commit."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from pipeline_lib.archive import ArchiveCommit, archive_path, chain_app_id, digest
from pipeline_lib.batches import Limits, RunReport, plan_next, read_available, units
from pipeline_lib.config import BatchSettings, Config, KafkaSettings, S3Settings
from pipeline_lib.io.kafka import Kafka, TopicInfo
from pipeline_lib.io.s3 import S3, ArchiveTable
from pipeline_lib.log import fact
from pipeline_lib.progress import BatchPlan, OffsetRange, app_id
from pipeline_lib.segment import Segment, with_event_times, write_segments
from pipeline_lib.topics import Topic


@dataclass(frozen=True)
class ArchiveUnit:
    """One offset range of one partition, with all that a task needs to archive it wherever it runs."""

    kafka: KafkaSettings
    s3: S3Settings
    batch: BatchSettings
    topic: Topic
    info: TopicInfo
    span: OffsetRange
    path: str
    run: str


Runner = Callable[[Callable[[ArchiveUnit], list[Segment]], list[ArchiveUnit]], list[list[Segment]]]
"""Runs a function over units, somewhere, and returns the results in the units' order."""


def archive_unit(unit: ArchiveUnit) -> list[Segment]:
    """Fetches the unit's records and stores them as segments, one at a time, so that memory stays bounded."""
    store, codec = S3(unit.s3), unit.topic.make_codec()
    stored = []
    with Kafka(unit.kafka) as kafka:
        records = kafka.read(unit.info, unit.span, unit.batch.fetch_bytes)
        rows = (with_event_times(batch, codec) for batch in records)
        for segment, data in write_segments(rows, unit.info.topic_id, unit.span, unit.batch.segment_bytes, unit.run):
            store.put(f"{unit.path}/{segment.path}", data)
            stored.append(segment)
    return stored


def archive_topic(config: Config, topic: Topic, limits: Limits, run_units: Runner) -> RunReport:
    """Archives what Kafka has and the archive has not, batch by batch, up to now or `limits.until`.

    Raises:
        LostRace: a concurrent run committed first; nothing of this batch is visible.
    """
    with Kafka(config.kafka) as kafka:
        info = kafka.describe(topic.name)
        report = RunReport(topic.name, info.topic_id)
        cluster = kafka.cluster_id()
        path = archive_path(cluster, topic.name)
        available = read_available(kafka, info, limits.until)
        while True:
            table = ArchiveTable(config.s3, path)
            table.create()
            progress = table.progress({p: app_id(info.topic_id, p) for p in info.partitions})
            plan = plan_next(kafka, info, progress, available, config.batch, limits)
            if not plan.covers:
                fact("nothing_to_do" if not report.batches else "done", stage="archive", topic=topic.name)
                break
            fact("planned", stage="archive", topic=topic.name, offsets=sum(r.until - r.since for r in plan.ranges))
            run = uuid.uuid4().hex[:8]
            todo = [
                ArchiveUnit(config.kafka, config.s3, config.batch, topic, info, span, path, run)
                for span in units(plan, config.batch.unit_records)
            ]
            segments = [segment for part in run_units(archive_unit, todo) for segment in part]
            fact("written", stage="archive", topic=topic.name, run=run, segments=len(segments))
            _commit(table, ArchiveHeader(cluster, topic.name, info.topic_id, run), plan, segments)
            _add(report, plan, segments)
            kafka.set_group_offsets(f"lode.archive.{topic.name}", topic.name, plan.ends)
            if plan.complete:
                break
    return report


@dataclass(frozen=True)
class ArchiveHeader:
    cluster: str
    topic: str
    topic_id: str
    run: str


def _commit(table: ArchiveTable, header: ArchiveHeader, plan: BatchPlan, segments: list[Segment]) -> None:
    commits = table.commits()
    number = len(commits) + 1
    commit = ArchiveCommit(
        number=number,
        cluster=header.cluster,
        topic=header.topic,
        topic_id=header.topic_id,
        run=header.run,
        covers=plan.covers,
        gaps=plan.gaps,
        segments=tuple(segments),
        previous=digest(commits[-1]) if commits else "",
    )
    moves = {app_id(header.topic_id, p): until for p, until in plan.ends.items()} | {chain_app_id(): number}
    table.commit(segments, commit.to_json(), moves)
    fact("committed", stage="archive", topic=header.topic, commit=number, records=sum(s.records for s in segments))


def _add(report: RunReport, plan: BatchPlan, segments: list[Segment]) -> None:
    report.batches += 1
    report.records += sum(segment.records for segment in segments)
    report.bytes += sum(segment.bytes for segment in segments)
    report.gaps += plan.gaps
