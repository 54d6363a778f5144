"""Kafka -> S3: the archive's batch, from plan to commit."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline_lib.archive.commits import ArchiveCommit, archive_path, chain_app_id, digest
from pipeline_lib.archive.segment import Segment, with_event_times, write_segments
from pipeline_lib.batches.progress import BatchPlan
from pipeline_lib.batches.run import Limits, RunReport, Source, Written, run_batches
from pipeline_lib.config import BatchSettings, Config, KafkaSettings, S3Settings
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange
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
    """Archives what Kafka has and the archive has not; see run_batches."""
    return run_batches(config, topic.name, limits, ArchiveStage(config, topic, run_units))


@dataclass(frozen=True)
class ArchiveStage:
    """The archive as a stage that follows Kafka."""

    config: Config
    topic: Topic
    run_units: Runner
    name = "archive"
    counts = ("records",)

    def open(self, source: Source) -> "_OpenArchive":
        table = ArchiveTable(self.config.s3, archive_path(source.cluster, self.topic.name))
        table.create()
        return _OpenArchive(self, table)


@dataclass(frozen=True)
class _OpenArchive:
    stage: ArchiveStage
    table: ArchiveTable

    def progress(self, app_ids: Mapping[int, str]) -> dict[int, int]:
        return self.table.progress(app_ids)

    def write(self, source: Source, plan: BatchPlan, moves: Mapping[str, int]) -> Written:
        config, topic, path = self.stage.config, self.stage.topic, self.table.path
        run = uuid.uuid4().hex[:8]
        units = [
            ArchiveUnit(config.kafka, config.s3, config.batch, topic, source.info, span, path, run)
            for span in plan.units(config.batch.unit_records)
        ]
        segments = [segment for part in self.stage.run_units(archive_unit, units) for segment in part]
        fact("written", stage=self.stage.name, topic=topic.name, run=run, segments=len(segments))
        self._commit(source, plan, moves, segments, run)
        return Written(sum(s.bytes for s in segments), {"records": sum(s.records for s in segments)})

    def _commit(
        self, source: Source, plan: BatchPlan, moves: Mapping[str, int], segments: list[Segment], run: str
    ) -> None:
        commits = self.table.commits()
        number = len(commits) + 1
        commit = ArchiveCommit(
            number=number,
            cluster=source.cluster,
            topic=source.info.name,
            topic_id=source.info.topic_id,
            run=run,
            covers=plan.covers,
            gaps=plan.gaps,
            segments=tuple(segments),
            previous=digest(commits[-1]) if commits else "",
        )
        self.table.commit(segments, commit.to_json(), {**moves, chain_app_id(): number})
        records = sum(segment.records for segment in segments)
        fact("committed", stage=self.stage.name, topic=source.info.name, commit=number, records=records)
