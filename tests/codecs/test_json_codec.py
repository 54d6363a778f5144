"""The codecs "json" and "raw", and the registry."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline_lib.codecs import CodecSettings, Decoded, Undecodable, events_to_arrow, make_codec
from pipeline_lib.errors import ConfigError

FIELDS = [
    ("id", pa.string()),
    ("ok", pa.bool_()),
    ("small", pa.int32()),
    ("big", pa.int64()),
    ("ratio", pa.float64()),
    ("at", pa.timestamp("ms", tz="UTC")),
]


def settings(time_format: str = "ms", **changes: Any) -> CodecSettings:
    return CodecSettings(
        **{"name": "json", "event_time_field": "t", "event_time_format": time_format, "id_field": "id"}
        | {"fields": FIELDS}
        | changes
    )


def time_of(time_format: str, literal: str) -> int:
    (event,) = make_codec(settings(time_format)).decode(f'{{"id": "a", "t": {literal}}}'.encode(), 0)
    return event.event_time


def test_declared_fields_are_read_and_others_ignored() -> None:
    value = (
        b'{"t":1600104748265,"id":"a","ok":true,"small":-2147483648,"big":9223372036854775807,'
        b'"ratio":3,"at":1600104748266,"x":[1]}'
    )
    (event,) = make_codec(settings()).decode(value, 0)
    assert event == Decoded(
        1600104748265,
        {"id": "a", "ok": True, "small": -(2**31), "big": 2**63 - 1, "ratio": 3.0, "at": 1600104748266},
    )
    assert make_codec(settings()).event_time_range(value, 0) == (1600104748265, 1600104748265)


@pytest.mark.parametrize(
    ("time_format", "literal", "moment"),
    [
        ("ms", "1600104748265", 1600104748265),
        ("s", "1600104748", 1600104748000),
        ("s", "1600104748.265", 1600104748265),
        ("s", "1600104748.2659", 1600104748265),
        ("iso8601", '"2020-09-14T17:32:28.265Z"', 1600104748265),
        ("iso8601", '"2020-09-14T10:32:28.265999-07:00"', 1600104748265),
    ],
)
def test_event_time_formats(time_format: str, literal: str, moment: int) -> None:
    assert time_of(time_format, literal) == moment


@pytest.mark.parametrize(
    ("time_format", "literal", "reason"),
    [
        ("ms", "1600104748", "out_of_range: t"),
        ("ms", "946684799999", "out_of_range: t"),
        ("ms", "4102444800000", "out_of_range: t"),
        ("ms", "1600104748265.0", "wrong_type: t"),
        ("ms", "true", "wrong_type: t"),
        ("s", "1600104748265", "out_of_range: t"),
        ("s", "1e300", "out_of_range: t"),
        ("iso8601", '"2020-09-14T17:32:28"', "wrong_type: t has no offset"),
        ("iso8601", '"yesterday"', "wrong_type: t"),
        ("iso8601", '"1999-12-31T23:59:59Z"', "out_of_range: t"),
        ("iso8601", "1600104748265", "wrong_type: t"),
        ("ms", "null", "missing t"),
    ],
)
def test_event_time_that_cannot_be_right_is_refused(time_format: str, literal: str, reason: str) -> None:
    with pytest.raises(Undecodable) as caught:
        time_of(time_format, literal)
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ('"id": 5', "wrong_type: id"),
        ('"id": null', "missing id"),
        ('"ok": 1', "wrong_type: ok"),
        ('"small": 2147483648', "out_of_range: small"),
        ('"big": 9223372036854775808', "out_of_range: big"),
        ('"big": 1.0', "wrong_type: big"),
        ('"big": true', "wrong_type: big"),
        ('"ratio": "1"', "wrong_type: ratio"),
        ('"ratio": NaN', "not_json"),
        ('"ratio": Infinity', "not_json"),
        ('"ratio": 1e400', "out_of_range"),
        ('"at": 5', "out_of_range: at"),
    ],
)
def test_field_of_the_wrong_type_is_refused_by_name(members: str, reason: str) -> None:
    head = '"t": 1600104748265' + ("" if members.startswith('"id"') else ', "id": "a"')
    with pytest.raises(Undecodable) as caught:
        make_codec(settings()).decode(f"{{{head}, {members}}}".encode(), 0)
    assert caught.value.reason.startswith(reason)


def test_absent_fields_are_null_and_times_are_utc_in_arrow() -> None:
    values = pa.array([b'{"t":1600104748265,"id":"a"}', None, b"[]"], pa.binary())
    batch, refused = events_to_arrow(make_codec(settings()), values, np.zeros(3, np.int64))
    assert [(record, reason.split(":")[0]) for record, reason in refused] == [(1, "tombstone"), (2, "wrong_type")]
    assert batch.schema.field("event_time").type == pa.timestamp("ms", tz="UTC")
    row = batch.to_pylist()[0]
    assert row["event_time"].isoformat() == "2020-09-14T17:32:28.265000+00:00"
    assert (row["record"], row["index"], row["ok"], row["at"]) == (0, 0, None, None)


def test_raw_keeps_null_and_empty_apart_at_the_record_time() -> None:
    codec = make_codec(CodecSettings("raw"))
    batch, refused = events_to_arrow(codec, pa.array([None, b"", b"\xff"], pa.binary()), np.array([1, 2, 3]))
    assert refused == []
    assert batch["value"].to_pylist() == [None, b"", b"\xff"]
    assert batch["event_time"].cast(pa.int64()).to_pylist() == [1, 2, 3]
    assert codec.event_time_range(b"", 1) is None


@pytest.mark.parametrize("codec", [settings(), CodecSettings("raw"), CodecSettings("optimizely-event-batch")])
def test_no_records_make_an_empty_batch_of_the_same_schema(codec: CodecSettings) -> None:
    made = make_codec(codec)
    empty, _ = events_to_arrow(made, pa.array([], pa.binary()), np.zeros(0, np.int64))
    refused, _ = events_to_arrow(made, pa.array([b"-"], pa.binary()), np.zeros(1, np.int64))
    assert empty.num_rows == 0
    assert empty.schema == refused.schema


@pytest.mark.parametrize(
    "wrong",
    [
        CodecSettings("avro"),
        settings("rfc822"),
        settings(event_time_field=""),
        settings(id_field="no"),
        settings(fields=[("id", pa.decimal128(5, 2))]),
        settings(fields=[("id", pa.timestamp("us"))]),
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong: CodecSettings) -> None:
    with pytest.raises(ConfigError):
        make_codec(wrong)
