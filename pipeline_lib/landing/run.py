"""Kafka -> HDFS: landing's batch, from plan to commit."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline_lib.batches.progress import BatchPlan
from pipeline_lib.batches.run import Limits, RunReport, Source, Written, run_batches
from pipeline_lib.config import Config, KafkaSettings
from pipeline_lib.datasets import events_path
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.io.spark import DeltaTarget, Session, functions, map_in_arrow
from pipeline_lib.landing.rows import PARTITIONED_BY, land_records, landed_schema
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.topics import Topic

FILE_RECORDS = 250_000
"""So many records a batch make one more task that writes an hour's rows: fresh traffic is all of one hour."""


@dataclass(frozen=True)
class LandUnit:
    """One offset range of one partition, with all that a task needs to decode it wherever it runs."""

    kafka: KafkaSettings
    topic: Topic
    info: TopicInfo
    span: OffsetRange
    fetch_bytes: int


def land_unit(unit: LandUnit) -> Iterator[pa.RecordBatch]:
    """The rows of the events table for the unit's records."""
    with Kafka(unit.kafka) as kafka:
        records = kafka.read(unit.info, unit.span, unit.fetch_bytes)
        yield from land_records(records, unit.topic.make_codec(), unit.info.topic_id, unit.span.partition)


def land_topic(config: Config, topic: Topic, limits: Limits, spark: Session) -> RunReport:
    """Lands what Kafka has and the events table has not; see run_batches."""
    return run_batches(config, topic.name, limits, LandStage(config, topic, spark))


@dataclass(frozen=True)
class LandStage:
    """Landing as a stage that follows Kafka."""

    config: Config
    topic: Topic
    spark: Session
    name = "land"
    counts = ("events", "quarantined")

    def open(self, source: Source) -> "_OpenEvents":
        schema = landed_schema(self.topic.make_codec())
        path = events_path(self.config.hdfs, self.topic.name)
        return _OpenEvents(self, DeltaTarget(self.spark, path, schema, PARTITIONED_BY), schema)


@dataclass(frozen=True)
class _OpenEvents:
    stage: LandStage
    table: DeltaTarget
    schema: pa.Schema

    def progress(self, app_ids: Mapping[int, str]) -> dict[int, int]:
        return self.table.progress(app_ids)

    def write(self, source: Source, plan: BatchPlan, moves: Mapping[str, int]) -> Written:
        config, topic = self.stage.config, self.stage.topic
        units = [
            LandUnit(config.kafka, topic, source.info, span, config.batch.fetch_bytes)
            for span in plan.units(config.batch.unit_records)
        ]
        rows = map_in_arrow(self.stage.spark, units, land_unit, self.schema)
        writers = 1 + sum(span.until - span.since for span in plan.ranges) // FILE_RECORDS
        spread = functions.pmod(functions.hash("_partition", "_offset"), functions.lit(writers))
        committed = self.table.commit(rows, _metadata(source, plan), moves, [spread])
        counts = {
            "events": committed.rows_by_quality.get("ok", 0),
            "quarantined": committed.rows_by_quality.get("quarantined", 0),
        }
        fact("committed", stage=self.stage.name, topic=topic.name, version=committed.version, **counts)
        return Written(committed.bytes, counts)


def _metadata(source: Source, plan: BatchPlan) -> str:
    """What Delta's history shows of the commit: which offsets it covers, and which Kafka no longer had."""
    covers: Mapping[str, list[int]] = {str(p): list(span) for p, span in plan.covers.items()}
    gaps = [[gap.partition, gap.since, gap.until] for gap in plan.gaps]
    values = {
        "format": 1,
        "cluster": source.cluster,
        "topic": source.info.name,
        "topic_id": source.info.topic_id,
        "covers": covers,
        "gaps": gaps,
    }
    return json.dumps({"lode": values}, separators=(",", ":"))
