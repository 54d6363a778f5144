"""Landing: raw Kafka records to rows of the events table.

Dataset: hdfs://.../landing/TOPIC, Delta, partitioned by quality, date and hour of event_time. Grain: one row an event
where quality is `ok`; one row a record, with its raw bytes and a reason, where quality is `quarantined` (its date and
hour are those of the record's timestamp). A record with one bad event is quarantined whole, so that it is never half
counted. Duplicates are kept; readers drop them by the topic's id field.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.codecs.arrow import events_to_arrow
from pipeline_lib.codecs.base import Codec
from pipeline_lib.errors import ConfigError

TIME = pa.timestamp("us", tz="UTC")  # Spark's resolution; Kafka's and the events' own is ms
_EARLIEST, _LATEST = -62_135_596_800_000, 253_402_300_799_999  # ms: the years 1 to 9999
PARTITIONED_BY = ("quality", "date", "hour")

_OWN = [
    pa.field("event_time", TIME),
    pa.field("_topic_id", pa.string()),
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_index", pa.int32()),
    pa.field("_timestamp", TIME),
    pa.field("_key", pa.binary()),
    pa.field("_value", pa.binary()),
    pa.field("_reason", pa.string()),
    pa.field("quality", pa.string()),
    pa.field("date", pa.date32()),
    pa.field("hour", pa.int32()),
]


def landed_schema(codec: Codec) -> pa.Schema:
    """The columns of the events table for a codec."""
    fields = [pa.field(name, _spark_type(kind)) for name, kind in codec.schema()]
    clash = {field.name for field in fields} & {field.name for field in _OWN}
    if clash:
        raise ConfigError(f"field names {sorted(clash)} are the events table's own; name them otherwise")
    return pa.schema([*fields, *_OWN])


def land_records(
    batches: Iterable[pa.RecordBatch], codec: Codec, topic_id: str, partition: int
) -> Iterator[pa.RecordBatch]:
    """RAW_RECORD rows of one partition as rows of the events table; every record gives at least one row."""
    schema = landed_schema(codec)
    for records in batches:
        times = records.column("timestamp").cast(pa.int64()).to_numpy()
        events, refused = events_to_arrow(codec, records.column("value"), times)
        origin = records.take(events.column("record"))
        yield _rows(schema, origin, topic_id, partition, events)
        if refused:
            rows = pa.array([row for row, _ in refused], pa.int64())
            yield _rows(schema, records.take(rows), topic_id, partition, None, [reason for _, reason in refused])


def decoded_rows(landed: pa.RecordBatch) -> pa.RecordBatch:
    """Of rows of the events table those of decoded events: the quarantined records are left out."""
    return landed.filter(pc.equal(landed.column("quality"), "ok"))


def _rows(
    schema: pa.Schema,
    origin: pa.RecordBatch,
    topic_id: str,
    partition: int,
    events: pa.RecordBatch | None,
    reasons: list[str] | None = None,
) -> pa.RecordBatch:
    """One row for each row of `origin`, the record that it comes from: decoded events, or quarantined records."""
    size = origin.num_rows
    timestamp = _spark_time(origin.column("timestamp"))
    event_time = _spark_time(events.column("event_time")) if events else pa.nulls(size, TIME)
    placed_by = event_time if events else timestamp
    own = {
        "event_time": event_time,
        "_topic_id": pa.repeat(topic_id, size),
        "_partition": pa.array(np.full(size, partition, np.int32)),
        "_offset": origin.column("offset"),
        "_index": events.column("index") if events else pa.array(np.zeros(size, np.int32)),
        "_timestamp": timestamp,
        "_key": pa.nulls(size, pa.binary()) if events else origin.column("key"),
        "_value": pa.nulls(size, pa.binary()) if events else origin.column("value"),
        "_reason": pa.array(reasons if reasons is not None else [None] * size, pa.string()),
        "quality": pa.repeat("ok" if events else "quarantined", size),
        "date": placed_by.cast(pa.timestamp("us")).cast(pa.date32()),
        "hour": pc.hour(placed_by).cast(pa.int32()),
    }
    columns = []
    for field in schema:
        if field.name in own:
            columns.append(own[field.name].cast(field.type))
        else:
            columns.append(events.column(field.name).cast(field.type) if events else pa.nulls(size, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _spark_time(times: pa.Array) -> pa.Array:
    """The times at Spark's resolution. Kafka takes any number for a time, but Spark's end with the year 9999: what lies
    outside becomes the nearest that it has, since a record may neither stop the landing nor be dropped."""
    ms = times.cast(pa.int64())
    within = pc.min_element_wise(pc.max_element_wise(ms, _EARLIEST, skip_nulls=False), _LATEST, skip_nulls=False)
    return within.cast(pa.timestamp("ms", tz="UTC")).cast(TIME)


def _spark_type(kind: pa.DataType) -> pa.DataType:
    return TIME if pa.types.is_timestamp(kind) else kind
