"""Kafka -> HDFS: landing's batch, from plan to commit."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline_lib.batches import Limits, RunReport, plan_next, read_available, units
from pipeline_lib.config import Config, KafkaSettings
from pipeline_lib.datasets import events_path
from pipeline_lib.io.kafka import Kafka, TopicInfo
from pipeline_lib.io.spark import Committed, DeltaTarget, Session, map_in_arrow
from pipeline_lib.landing import PARTITIONED_BY, land_records, landed_schema
from pipeline_lib.log import fact
from pipeline_lib.progress import BatchPlan, OffsetRange, app_id
from pipeline_lib.topics import Topic


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
    """Lands what Kafka has and the events table has not, batch by batch, up to now or `limits.until`.

    Raises:
        LostRace: a concurrent run committed first; nothing of this batch is visible.
    """
    schema = landed_schema(topic.make_codec())
    path = events_path(config.hdfs, topic.name)
    with Kafka(config.kafka) as kafka:
        info = kafka.describe(topic.name)
        report = RunReport(topic.name, info.topic_id)
        available = read_available(kafka, info, limits.until)
        while True:
            table = DeltaTarget(spark, path, schema, PARTITIONED_BY)
            progress = table.progress({p: app_id(info.topic_id, p) for p in info.partitions})
            plan = plan_next(kafka, info, progress, available, config.batch, limits)
            if not plan.covers:
                fact("nothing_to_do" if not report.batches else "done", stage="land", topic=topic.name)
                break
            fact("planned", stage="land", topic=topic.name, offsets=sum(r.until - r.since for r in plan.ranges))
            todo = [
                LandUnit(config.kafka, topic, info, span, config.batch.fetch_bytes)
                for span in units(plan, config.batch.unit_records)
            ]
            rows = map_in_arrow(spark, todo, land_unit, schema)
            moves = {app_id(info.topic_id, p): until for p, until in plan.ends.items()}
            committed = table.commit(rows, _metadata(kafka.cluster_id(), info, plan), moves)
            _add(report, plan, committed)
            fact("committed", stage="land", topic=topic.name, version=committed.version, **committed.rows_by_quality)
            kafka.set_group_offsets(f"lode.land.{topic.name}", topic.name, plan.ends)
            if plan.complete:
                break
    return report


def _metadata(cluster: str, info: TopicInfo, plan: BatchPlan) -> str:
    """What Delta's history shows of the commit: which offsets it covers, and which Kafka no longer had."""
    covers: Mapping[str, list[int]] = {str(p): list(span) for p, span in plan.covers.items()}
    gaps = [[gap.partition, gap.since, gap.until] for gap in plan.gaps]
    values = {
        "format": 1,
        "cluster": cluster,
        "topic": info.name,
        "topic_id": info.topic_id,
        "covers": covers,
        "gaps": gaps,
    }
    return json.dumps({"lode": values}, separators=(",", ":"))


def _add(report: RunReport, plan: BatchPlan, committed: Committed) -> None:
    report.batches += 1
    report.events += committed.rows_by_quality.get("ok", 0)
    report.quarantined += committed.rows_by_quality.get("quarantined", 0)
    report.bytes += committed.bytes
    report.gaps += plan.gaps
