"""Rows of events: keys, layouts, and what stands when rows meet."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline_lib.codecs import CodecSettings, make_codec
from pipeline_lib.errors import ConfigError
from pipeline_lib.hbase.mapping import (
    HBaseMapping,
    Row,
    decode_row,
    event_time_of,
    latest,
    put_batches,
    row_bytes,
    row_key,
    rows,
    too_large,
)
from pipeline_lib.landing.rows import landed_schema

MAPPING = HBaseMapping.model_validate(
    {"key": ["id"], "versions": {"v1": {"table": "t"}, "v2": {"table": "p", "layout": "packed"}}}
)
V1, V2 = MAPPING.versions["v1"], MAPPING.versions["v2"]
KINDS: dict[str, Any] = {
    "id": pa.string(),
    "yes": pa.bool_(),
    "small": pa.int32(),
    "big": pa.int64(),
    "real": pa.float64(),
    "at": pa.timestamp("ms", tz="UTC"),
}
SCHEMA = landed_schema(make_codec(CodecSettings("json", "at", "ms", "id", tuple(KINDS.items()))))
NOW = 1_795_392_061_234


def events(*found: dict[str, Any], timestamp: int = NOW) -> pa.RecordBatch:
    own = {"event_time": NOW * 1000, "_timestamp": timestamp * 1000, "quality": "ok"}
    return pa.RecordBatch.from_pylist([own | dict.fromkeys(KINDS) | event for event in found], schema=SCHEMA)


def test_row_keys_are_salt_time_and_id() -> None:
    key = row_key(MAPPING, NOW, ["a", None, "ü"])
    assert key[1:9] == NOW.to_bytes(8, "big")
    assert key[9:] == b"a\0\0\xc3\xbc"
    assert key[:1] in MAPPING.salts
    assert event_time_of(key) == NOW
    with pytest.raises(ValueError, match="too short"):
        event_time_of(b"short")


def test_salts_spread_the_rows_evenly() -> None:
    found = [row_key(MAPPING, NOW, [str(i)])[:1] for i in range(8000)]
    assert MAPPING.salts == [bytes([at]) for at in range(0, 256, 32)]
    assert all(800 < found.count(salt) < 1200 for salt in MAPPING.salts)


def test_columns_hold_what_hbase_itself_writes() -> None:
    (row,) = rows(events({"id": "a", "yes": True, "small": -1, "big": 2, "real": 0.5, "at": NOW * 1000}), MAPPING, V1)
    assert row.timestamp == NOW - NOW % 60_000
    assert row.cells == {
        b"e:id": b"a",
        b"e:yes": b"\xff",
        b"e:small": b"\xff\xff\xff\xff",
        b"e:big": b"\0\0\0\0\0\0\0\2",
        b"e:real": b"\x3f\xe0\0\0\0\0\0\0",
        b"e:at": NOW.to_bytes(8, "big"),
    }


EVENT = st.fixed_dictionaries(
    {
        "id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        "yes": st.none() | st.booleans(),
        "small": st.none() | st.integers(-(2**31), 2**31 - 1),
        "big": st.none() | st.integers(-(2**63), 2**63 - 1),
        "real": st.none() | st.floats(allow_nan=False),
        "at": st.none() | st.integers(0, 2**41).map(lambda ms: ms * 1000),
    }
)


@given(EVENT)
def test_both_layouts_give_back_the_event(event: dict[str, Any]) -> None:
    expected = event | {"at": None if event["at"] is None else event["at"] // 1000}
    for version in (V1, V2):
        (row,) = rows(events(event), MAPPING, version)
        assert decode_row(row.cells, SCHEMA, MAPPING, version) == expected


def test_nested_fields_are_the_same_in_both_layouts() -> None:
    codec = make_codec(CodecSettings("optimizely-event-batch"))
    schema = landed_schema(codec)
    attributes = [{"id": "1", "name": "n", "type": "custom", "value": None}]
    own = {"event_time": NOW * 1000, "_timestamp": NOW * 1000, "quality": "ok", "uuid": "u", "received_at": NOW * 1000}
    event = own | {"tags": {"b": "2", "a": "1"}, "attributes": attributes, "is_holdback": False}
    batch = pa.RecordBatch.from_pylist([event], schema=schema)
    mapping = MAPPING.model_copy(update={"key": ["uuid", "experiment_id"]})
    decoded = [decode_row(rows(batch, mapping, v)[0].cells, schema, mapping, v) for v in (V1, V2)]
    assert decoded[0] == decoded[1]
    assert decoded[0]["tags"] == {"a": "1", "b": "2"}
    assert decoded[0]["attributes"] == attributes
    assert decoded[0]["received_at"] == NOW


def test_a_packed_row_grows_by_fields_at_its_end() -> None:
    fewer = V2.model_copy(update={"fields": ["id", "big"]})
    more = V2.model_copy(update={"fields": ["id", "big", "real"]})
    (row,) = rows(events({"id": "a", "big": 5, "real": 1.5}), MAPPING, fewer)
    assert decode_row(row.cells, SCHEMA, MAPPING, more) == {"id": "a", "big": 5, "real": None}
    with pytest.raises(ValueError, match="no packed row"):
        decode_row({b"e:p": b"\xff"}, SCHEMA, MAPPING, V2)
    with pytest.raises(ValueError, match="no packed row"):
        decode_row({}, SCHEMA, MAPPING, V2)


def test_an_event_without_a_value_is_no_row() -> None:
    only_real = V1.model_copy(update={"fields": ["real"]})
    found = rows(events({"id": "a"}, {"id": "b", "real": 1.0}), MAPPING, only_real)
    assert [row.key[9:] for row in found] == [b"b"]


def test_fields_that_the_codec_does_not_give_are_named() -> None:
    with pytest.raises(ConfigError, match="nope"):
        rows(events({"id": "a"}), MAPPING, V1.model_copy(update={"fields": ["id", "nope"]}))


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 3), st.binary(max_size=30))),
    st.integers(1, 4),
)
def test_requests_bring_about_the_latest_of_each_key(found: list[tuple[bytes, int, bytes]], most: int) -> None:
    written = [Row(key, {b"e:v": value}, timestamp) for key, timestamp, value in found]
    table: dict[bytes, Row] = {}
    for batch in put_batches(written, most, 80):
        assert len({row.timestamp for row in batch}) == 1
        assert len(batch) <= most
        assert len(batch) == 1 or sum(map(row_bytes, batch)) <= 80
        for row in batch:  # as HBase does: the greater timestamp stands, the later put of equal ones
            if row.key not in table or table[row.key].timestamp <= row.timestamp:
                table[row.key] = row
    assert table == latest(written)


def test_a_cell_beyond_the_limit_is_seen() -> None:
    assert too_large(Row(b"k", {b"e:v": bytes(10 << 20)}, 0))
    assert not too_large(Row(b"k", {b"e:v": bytes((10 << 20) - 100)}, 0))


def test_a_declaration_has_a_power_of_two_of_buckets() -> None:
    with pytest.raises(ValidationError, match="power of two"):
        HBaseMapping.model_validate({"key": ["id"], "salt_buckets": 6, "versions": {"v1": {"table": "t"}}})
    with pytest.raises(ConfigError, match="v9"):
        MAPPING.version("v9")
