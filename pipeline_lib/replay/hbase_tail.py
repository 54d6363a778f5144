"""The newest minute of a replay to HBase.

Cell timestamps are cut to the minute (docs/decisions/0006). A record that was served, but is not archived yet, can have
the row key and the cell timestamp of an archived one, and of two equal timestamps the later put stands. So once the
minute is over, what Kafka has of it beyond the archive is put again, in order, above what the replay put.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.archive.log import kafka_if_up, read_archive
from pipeline_lib.config import Config
from pipeline_lib.hbase.clusters import open_cluster
from pipeline_lib.hbase.mapping import CELL_STEP_MS, Row
from pipeline_lib.hbase.put import Putter
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.replay.hbase_units import HBaseUnit
from pipeline_lib.replay.plan import ReplayPlan

DISORDER_MS = 10 * CELL_STEP_MS
"""How long after a minute its last records are looked for: producers do not send in the order of their clocks."""


@dataclass(frozen=True)
class TailUnit:
    """The records of an offset range with timestamps up to `last_ms`, for one cluster."""

    unit: HBaseUnit
    span: OffsetRange
    last_ms: int


def open_tails(config: Config, plan: ReplayPlan) -> dict[int, tuple[OffsetRange, int]]:
    """For each partition of the plan the records that Kafka has beyond the archive, if some may be of the plan's newest
    minute, and the end of that minute (ms); waits until the minute is over. None while Kafka is away: what it has comes
    with the next archive run and replay."""
    newest = {p: max(s.timestamps[1] for s in segments) for p, segments in plan.partitions.items() if segments}
    minutes = {p: at - at % CELL_STEP_MS + CELL_STEP_MS for p, at in newest.items()}
    with kafka_if_up(config.kafka) as kafka:
        if kafka is None or plan.topic not in kafka.topics():
            return {}
        archived = _archived(config, kafka, plan)
        if not any(_beyond(kafka, plan, minutes, archived)):
            return {}
        time.sleep(max(0.0, max(minutes.values()) / 1000 + 1 - time.time()))
        found = {p: (span, minutes[p]) for p, span in _beyond(kafka, plan, minutes, archived).items()}
    fact(
        "newest_minute",
        replay=plan.id,
        partitions=len(found),
        records=sum(s.until - s.since for s, _ in found.values()),
    )
    return found


def _archived(config: Config, kafka: Kafka, plan: ReplayPlan) -> dict[int, int]:
    _, commits = read_archive(config, kafka, plan.topic)
    ends: dict[int, int] = {}
    for commit in commits:
        if commit.topic_id == plan.topic_id:
            ends |= {p: until for p, (_, until) in commit.covers.items()}
    return ends


def _beyond(
    kafka: Kafka, plan: ReplayPlan, minutes: Mapping[int, int], archived: Mapping[int, int]
) -> dict[int, OffsetRange]:
    info = kafka.describe(plan.topic)
    if info.topic_id != plan.topic_id or not minutes:
        return {}
    later = kafka.offsets_at(info, max(minutes.values()) + DISORDER_MS)
    found = {}
    for p, (earliest, stable) in kafka.offsets(info).items():
        since, until = max(earliest, archived.get(p, 0)), min(stable, later.get(p, stable))
        if p in minutes and since < until:
            found[p] = OffsetRange(p, since, until)
    return found


def write_tail(tail: TailUnit) -> int:
    """Puts the records' rows; how many. Not noted for a resumed run: that looks again at what Kafka has by then."""
    unit = tail.unit
    with open_cluster(unit.config, unit.cluster) as cluster:
        putter = Putter(cluster, unit.target.table, unit.config.hbase)
        for found in read_tail(tail):
            putter.put(found)
    return putter.done.rows


def read_tail(tail: TailUnit) -> Iterator[list[Row]]:
    """The rows of the records, in order."""
    config, plan = tail.unit.config, tail.unit.plan
    with Kafka(config.kafka) as kafka:
        for records in kafka.read(kafka.describe(plan.topic), tail.span, config.batch.fetch_bytes):
            early = pc.less(records.column("timestamp").cast(pa.int64()), tail.last_ms)
            yield tail.unit.rows(records.filter(early))
