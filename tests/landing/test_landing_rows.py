"""Landing: every record gives rows, once, and where they come from stays known."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.codecs import CodecSettings, make_codec
from pipeline_lib.codecs.base import Codec
from pipeline_lib.errors import ConfigError
from pipeline_lib.landing.rows import land_records, landed_schema
from pipeline_lib.records.batch import RAW_RECORD

BASE = 1_793_577_599_999  # 2026-11-01T23:59:59.999Z


def codec(*fields: tuple[str, Any]) -> Codec:
    return make_codec(
        CodecSettings("json", event_time_field="at", id_field="id", fields=[("id", pa.string()), *fields])
    )


def records(values: list[bytes | None], timestamps: list[int] | None = None, first: int = 10) -> pa.RecordBatch:
    size = len(values)
    columns = [
        pa.array(range(first, first + size), pa.int64()),
        pa.array(timestamps or [BASE] * size, pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
        pa.array([0] * size, pa.int8()),
        pa.array([b"key%d" % at for at in range(size)], pa.binary()),
        pa.array(values, pa.binary()),
        pa.array([[]] * size, RAW_RECORD.field("headers").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RAW_RECORD)


def land(made: Codec, *batches: pa.RecordBatch) -> list[dict[str, Any]]:
    found = list(land_records(batches, made, "topic-id", 4))
    for batch in found:
        batch.validate(full=True)
        assert batch.schema.equals(landed_schema(made))
    return [row for batch in found for row in batch.to_pylist()]


def event(moment: int, **fields: object) -> bytes:
    return json.dumps({"at": moment, "id": "x"} | fields).encode()


def test_an_event_is_placed_by_its_own_time() -> None:
    late = 1_791_763_200_000  # 2026-10-12T00:00Z
    (row,) = land(codec(("n", pa.int64())), records([event(late, n=7)]))
    assert row == {
        "id": "x",
        "n": 7,
        "event_time": datetime(2026, 10, 12, tzinfo=UTC),
        "_topic_id": "topic-id",
        "_partition": 4,
        "_offset": 10,
        "_index": 0,
        "_timestamp": datetime(2026, 11, 1, 23, 59, 59, 999_000, tzinfo=UTC),
        "_key": None,
        "_value": None,
        "_reason": None,
        "quality": "ok",
        "date": date(2026, 10, 12),
        "hour": 0,
    }


def test_an_undecodable_record_keeps_its_bytes_and_its_place() -> None:
    ok, *refused = land(codec(), records([b"\xff", event(BASE), None]))
    assert (ok["quality"], ok["_offset"]) == ("ok", 11)
    assert [(row["_offset"], row["_key"], row["_value"]) for row in refused] == [
        (10, b"key0", b"\xff"),
        (12, b"key2", None),
    ]
    for row in refused:
        assert (row["quality"], row["date"], row["hour"]) == ("quarantined", date(2026, 11, 1), 23)
        assert row["_reason"]
        assert (row["event_time"], row["id"]) == (None, None)


@pytest.mark.parametrize("moment", [BASE + 1, BASE, BASE - 3_599_999])
def test_the_borders_of_hours_and_days(moment: int) -> None:
    (row,) = land(codec(), records([event(moment)]))
    told = datetime.fromtimestamp(moment // 1000, UTC)
    assert (row["date"], row["hour"]) == (told.date(), told.hour)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.none() | st.binary(max_size=5) | st.integers(0, 99).map(lambda at: event(BASE + at)), max_size=8),
        max_size=4,
    )
)
def test_every_record_gives_exactly_one_row(batches: list[list[bytes | None]]) -> None:
    offset, made = 0, []
    for values in batches:
        made.append(records(values, first=offset))
        offset += len(values)
    rows = land(codec(), *made)
    assert sorted(row["_offset"] for row in rows) == list(range(offset))
    values = [value for batch in batches for value in batch]
    for row in rows:
        original = values[row["_offset"]]
        assert row["_value"] == (None if row["quality"] == "ok" else original)


def test_raw_records_are_events_at_their_own_time() -> None:
    raw = make_codec(CodecSettings("raw"))
    rows = land(raw, records([b"a", None, b""], [BASE, 0, 1]))
    assert [(row["value"], row["quality"]) for row in rows] == [(b"a", "ok"), (None, "ok"), (b"", "ok")]
    assert rows[1]["date"] == date(1970, 1, 1)


@pytest.mark.parametrize("moment", [1 << 62, -(1 << 62), -1, 1_793_491_200_000_000])
def test_no_timestamp_stops_landing(moment: int) -> None:
    for made in (codec(), make_codec(CodecSettings("raw"))):
        (batch,) = (
            part for part in land_records([records([b"no json"], [moment])], made, "topic-id", 4) if part.num_rows
        )
        assert batch.column("_offset").to_pylist() == [10]


def test_fields_that_clash_with_the_tables_own_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"field names \['hour', 'quality'\]"):
        landed_schema(codec(("quality", pa.string()), ("hour", pa.int32())))
