"""Segments: together they cover the span, their statistics bound what is in them, their bytes are those recorded."""

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.archive.segment import SEGMENT, Segment, read_segment, record_bytes, with_event_times, write_segments
from pipeline_lib.codecs import CodecSettings, make_codec
from pipeline_lib.codecs.base import Codec
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.records.offsets import OffsetRange

BASE = 1_793_491_200_000
HEADERS = RAW_RECORD.field("headers").type
LONG = 1 << 62

Headers = list[tuple[str, bytes | None]]


def raw_batch(
    offsets: Sequence[int],
    timestamps: Sequence[int] | None = None,
    values: Sequence[bytes | None] | None = None,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers] | None = None,
) -> pa.RecordBatch:
    size = len(offsets)
    pairs = [[{"key": key, "value": value} for key, value in row] for row in headers or [[]] * size]
    columns = [
        pa.array(offsets, pa.int64()),
        pa.array(timestamps or [BASE] * size, pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
        pa.array([0] * size, pa.int8()),
        pa.array(keys or [None] * size, pa.binary()),
        pa.array(values or [None] * size, pa.binary()),
        pa.array(pairs, HEADERS),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RAW_RECORD)


def json_codec() -> Codec:
    return make_codec(CodecSettings("json", event_time_field="at", fields=[("at", pa.timestamp("ms", tz="UTC"))]))


def event(*times: int) -> bytes:
    return json.dumps({"at": times[0]}).encode()


def segments_of(
    batches: Sequence[pa.RecordBatch], span: OffsetRange, most: int, codec: Codec | None = None
) -> list[tuple[Segment, pa.Buffer]]:
    codec = codec or make_codec(CodecSettings("raw"))
    return list(write_segments((with_event_times(b, codec) for b in batches), "topic", span, most, "run"))


@st.composite
def pieces(draw: st.DrawFn) -> tuple[list[pa.RecordBatch], OffsetRange]:
    at = since = draw(st.integers(0, 1000))
    batches = []
    for size in draw(st.lists(st.integers(0, 30), max_size=8)):
        steps = draw(st.lists(st.integers(1, 5), min_size=size, max_size=size))
        offsets = [at + sum(steps[:i]) for i in range(size)]
        batches.append(raw_batch(offsets, [BASE + o % 7 for o in offsets], [b"v" * 100] * size))
        at += sum(steps)
    return batches, OffsetRange(3, since, at + draw(st.integers(1, 5)))


@settings(max_examples=100, deadline=None)
@given(pieces(), st.sampled_from([1, 3000, 1 << 30]))
def test_segments_cover_the_span_without_a_hole(made: tuple[list[pa.RecordBatch], OffsetRange], most: int) -> None:
    batches, span = made
    found = segments_of(batches, span, most)
    rows = pa.Table.from_batches(batches, RAW_RECORD)
    if not rows.num_rows:
        assert found == []
        return
    assert (found[0][0].since, found[-1][0].until) == (span.since, span.until)
    assert all(left.until == right.since for (left, _), (right, _) in pairwise(found))
    tables = []
    for segment, data in found:
        table = read_segment(segment, data.to_pybytes()).read()
        assert table.schema.equals(SEGMENT)
        tables.append(table)
        offsets = table["offset"].to_pylist()
        assert offsets == sorted(offsets)
        assert segment.since <= offsets[0] <= offsets[-1] < segment.until
        assert (segment.offsets, segment.records) == ((offsets[0], offsets[-1]), len(offsets))
        times = table["timestamp"].cast(pa.int64()).to_pylist()
        assert segment.timestamps == (min(times), max(times))
        assert (segment.largest_record, segment.event_times) == (100, None)
    assert pa.concat_tables(tables).select(RAW_RECORD.names).equals(rows)
    if most == 1:
        assert len(found) == sum(batch.num_rows > 0 for batch in batches)


def test_the_object_is_named_after_its_range_digest_and_run() -> None:
    ((segment, data),) = segments_of([raw_batch([7, 9])], OffsetRange(2, 5, 12), 1 << 20)
    digest = hashlib.sha256(data).hexdigest()
    assert segment.path == f"topic_id=topic/partition=2/{5:020d}-{12:020d}-{digest}-run.parquet"
    assert (segment.sha256, segment.bytes) == (digest, data.size)
    assert Segment.from_dict(json.loads(json.dumps(segment.as_dict()))) == segment
    meta = pq.ParquetFile(pa.BufferReader(data)).metadata
    assert meta.row_group(0).column(0).compression == "ZSTD"


def test_event_times_of_late_data_do_not_hide() -> None:
    times = [BASE + 50, BASE - 86_400_000, BASE + 10, BASE + 90]
    values = [event(at) for at in times] + [b"no json", None]
    batches = [raw_batch([0, 1, 2], values=values[:3]), raw_batch([3, 4, 5], values=values[3:]), raw_batch([6])]
    ((segment, data),) = segments_of(batches, OffsetRange(0, 0, 7), 1 << 20, json_codec())
    assert segment.event_times == (min(times), max(times))
    stored = read_segment(segment, data.to_pybytes()).read()
    assert stored["event_time"].cast(pa.int64()).to_pylist() == [*times, None, None, None]
    stats = json.loads(segment.stats())
    assert stats["minValues"]["event_time"] == "2026-10-31T00:00:00.000Z"
    assert stats["maxValues"]["event_time_max"] == "2026-11-01T00:00:00.090Z"
    assert stats["numRecords"] == 7
    assert (stats["minValues"]["offset"], stats["maxValues"]["offset"]) == (0, 6)


@pytest.mark.parametrize(
    "moment", [-1, 0, 1, 253_402_300_799_999, 253_402_300_800_000, 1_793_491_200_000_000, LONG, -LONG]
)
def test_no_timestamp_stops_the_archive(moment: int) -> None:
    # A producer may set any time, such as microseconds taken for milliseconds: the year 58802.
    ((segment, data),) = segments_of([raw_batch([0, 1], [moment, BASE])], OffsetRange(0, 0, 2), 1 << 20)
    assert segment.timestamps == (min(moment, BASE), max(moment, BASE))
    stored = read_segment(segment, data.to_pybytes()).read()
    assert stored["timestamp"].cast(pa.int64()).to_pylist() == [moment, BASE]
    stats = json.loads(segment.stats())
    assert stats["numRecords"] == 2
    for side in ("minValues", "maxValues"):  # a bound that cannot be spelt is left out: readers then open the file
        assert stats[side].get("timestamp", "1970")[:4].isdigit()
    if moment == -1:
        assert stats["minValues"]["timestamp"] == "1969-12-31T23:59:59.999Z"
    if abs(moment) == LONG:
        assert "timestamp" not in stats["minValues" if moment < 0 else "maxValues"]


record_parts = st.tuples(
    st.none() | st.binary(max_size=9),
    st.none() | st.binary(max_size=9),
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=5)), max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(record_parts, max_size=40), st.integers(0, 5), st.integers(0, 40))
def test_record_bytes_of_each_record(
    parts: list[tuple[bytes | None, bytes | None, Headers]], start: int, size: int
) -> None:
    keys, values, headers = ([part[i] for part in parts] for i in range(3))
    batch = raw_batch(range(len(parts)), None, values, keys, headers).slice(start, size)  # type: ignore[arg-type]
    expected = [
        len(key or b"") + len(value or b"") + sum(len(name.encode()) + len(data or b"") for name, data in pairs)
        for key, value, pairs in parts[start : start + size]
    ]
    assert record_bytes(batch).to_pylist() == expected


def test_record_bytes_keep_their_rows_in_large_batches() -> None:
    headers: list[Headers] = [[("h", b"x" * (at % 5))] * (at % 3) for at in range(100_000)]
    batch = raw_batch(range(100_000), headers=headers)
    assert record_bytes(batch).to_pylist() == [at % 3 * (1 + at % 5) for at in range(100_000)]


def test_the_largest_record_is_found() -> None:
    headers: list[Headers] = [[], [("key", b"x" * 500), ("key", None)], []]
    batches = [raw_batch([0, 1, 2], None, [b"a" * 99, b"b", None], headers=headers), raw_batch([3], values=[b"c"])]
    ((segment, _),) = segments_of(batches, OffsetRange(0, 0, 4), 1 << 20)
    assert segment.largest_record == 1 + 3 + 500 + 3


def test_stored_bytes_that_differ_are_refused() -> None:
    ((segment, buffer),) = segments_of([raw_batch([7])], OffsetRange(0, 5, 12), 1 << 20)
    data = buffer.to_pybytes()
    assert read_segment(segment, data).read().num_rows == 1
    with pytest.raises(VerificationFailed, match=r"is missing: offsets \[5, 12\)"):
        read_segment(segment, None)
    for wrong in (b"", data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(VerificationFailed, match="is corrupt"):
            read_segment(segment, wrong)


def test_the_codec_finds_the_range_within_a_record() -> None:
    class Pair:
        tells_event_time = True

        def event_time_range(self, value: bytes | None, timestamp_ms: int) -> tuple[int, int] | None:
            return (timestamp_ms - 5, timestamp_ms + 5) if value else None

    rows = with_event_times(raw_batch([0, 1], [BASE, BASE + 1], [b"x", None]), Pair())  # type: ignore[arg-type]
    assert pc.cast(rows.column("event_time"), pa.int64()).to_pylist() == [BASE - 5, None]
    assert pc.cast(rows.column("event_time_max"), pa.int64()).to_pylist() == [BASE + 5, None]


def test_an_empty_end_does_not_leave_a_hole() -> None:
    found = segments_of([raw_batch([0]), raw_batch([1]), raw_batch([])], OffsetRange(0, 0, 9), 1)
    assert [(segment.since, segment.until) for segment, _ in found] == [(0, 1), (1, 9)]
