"""Events for the analyses as landing makes them of collectors' batches."""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipeline_lib.codecs import CodecSettings, make_codec
from pipeline_lib.io.spark import Frame, Session
from pipeline_lib.landing.rows import decoded_rows, land_records
from pipeline_lib.records.batch import RAW_RECORD


def landed(spark: Session, values: Iterable[bytes], timestamp_ms: int = 1_600_200_000_000) -> Frame:
    """The decoded rows of records with these values."""
    records = [{"offset": n, "timestamp": timestamp_ms, "timestamp_type": 0, "key": None, "value": value, "headers": []}
               for n, value in enumerate(values)]  # fmt: skip
    batch = pa.RecordBatch.from_pylist(records, schema=RAW_RECORD)
    codec = make_codec(CodecSettings("optimizely-event-batch"))
    return spark.createDataFrame(
        pa.Table.from_batches([decoded_rows(each) for each in land_records([batch], codec, "t", 0)])
    )


def batch(
    visitor: str, *events: dict[str, Any], attributes: tuple[dict[str, Any], ...] = (), agent: str = "x"
) -> bytes:
    """One visitor's batch; an event with `experiment` and `variation` is a decision."""
    snapshots = []
    for event in events:
        plain = {name: value for name, value in event.items() if name not in ("experiment", "variation", "holdback")}
        snapshot: dict[str, Any] = {"events": [plain]}
        if "experiment" in event:
            plain["key"] = "campaign_activated"
            choice = {"campaign_id": "1", "experiment_id": event["experiment"], "variation_id": event["variation"]}
            snapshot["decisions"] = [choice | {"is_campaign_holdback": event.get("holdback", False)}]
        snapshots.append(snapshot)
    who = {"visitor_id": visitor, "snapshots": snapshots, "attributes": list(attributes)}
    body = {"account_id": "1", "visitors": [who]}
    return json.dumps(
        {"received_at": 1_600_000_000_000, "client_ip": "1.2.3.4", "user_agent": agent, "body": body}
    ).encode()
