"""Verification's pure half: what a segment's rows may not be, and the comparison with Kafka."""

import hashlib
import io
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_lib.archive.commits import ArchiveCommit
from pipeline_lib.archive.segment import SEGMENT, Segment, write_segments
from pipeline_lib.archive.verify import check_segment, compare_records, empty_ranges, sampled
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.records.offsets import OffsetRange


def rows(offsets: list[int], values: list[bytes | None] | None = None) -> pa.RecordBatch:
    size = len(offsets)
    columns = [
        pa.array(offsets, pa.int64()),
        pa.array([1000 + at for at in offsets], pa.int64()).cast(RAW_RECORD.field("timestamp").type),
        pa.array([0] * size, pa.int8()),
        pa.array([b"k"] * size, pa.binary()),
        pa.array(values or [b"value"] * size, pa.binary()),
        pa.array([[("a", b"1"), ("a", None)]] * size, RAW_RECORD.field("headers").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RAW_RECORD)


def stored(batch: pa.RecordBatch, span: OffsetRange | None = None) -> tuple[Segment, bytes]:
    times = pa.nulls(batch.num_rows, SEGMENT.field("event_time").type)
    whole = pa.RecordBatch.from_arrays([*batch.columns, times, times], schema=SEGMENT)
    ((segment, data),) = write_segments([whole], "id", span or OffsetRange(0, 0, 10), 1 << 30, "run")
    return segment, data.to_pybytes()


def test_segment_as_written_has_no_problem() -> None:
    segment, data = stored(rows([0, 3, 9]))
    table, problems = check_segment(segment, data)
    assert problems == []
    assert table.num_rows == 3


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"records": 4}, "3 records instead of 4"),
        ({"offsets": (0, 8)}, "offset from 0 to 9"),
        ({"timestamps": (1000, 1008)}, "timestamp from 1000 to 1009"),
        ({"event_times": (1, 2)}, "event_time from None"),
        ({"since": 1}, "outside [1, 10)"),
        ({"until": 9}, "outside [0, 9)"),
        ({"largest_record": 7}, "instead of 7"),
        ({"partition": 1}, "another partition"),
        ({"sha256": "0"}, "sha256"),
        ({"bytes": 1}, "bytes instead of 1"),
    ],
)
def test_every_claim_of_the_commit_is_checked(change: dict[str, object], found: str) -> None:
    segment, data = stored(rows([0, 3, 9]))
    _, problems = check_segment(replace(segment, **change), data)  # type: ignore[arg-type]
    assert len(problems) == 1
    assert found in problems[0]


def test_offsets_have_to_increase() -> None:
    segment, data = stored(rows([0, 3, 3]))
    assert check_segment(segment, data)[1] == ["offsets do not increase strictly"]


def test_page_checksums_are_verified() -> None:
    segment, data = stored(rows(list(range(10)), [b"A" * 50] * 10))
    table = pq.ParquetFile(pa.BufferReader(data)).read()
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none", use_dictionary=False, write_page_checksum=True)
    changed = sink.getvalue().replace(b"A" * 50 + b"\x32", b"A" * 49 + b"B\x32", 1)
    claimed = replace(segment, bytes=len(changed), sha256=hashlib.sha256(changed).hexdigest())
    (problem,) = check_segment(claimed, changed)[1]
    assert "not readable as Parquet" in problem


def test_other_schema_is_found() -> None:
    segment, _ = stored(rows([0]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"offset": [0]}), sink)
    claimed = replace(segment, bytes=len(sink.getvalue()), sha256=hashlib.sha256(sink.getvalue()).hexdigest())
    assert check_segment(claimed, sink.getvalue())[1] == ["has another schema than a segment"]


def compare(ours: pa.RecordBatch, theirs: list[pa.RecordBatch], subset: bool = False) -> tuple[int, list[str]]:
    return compare_records(pa.Table.from_batches([ours]), theirs, OffsetRange(0, 0, 10), subset)


def test_records_are_compared_one_for_one() -> None:
    ours = rows([0, 2, 4], [b"a", b"", None])
    assert compare(ours, [ours.slice(0, 1), ours.slice(1)]) == (3, [])
    assert compare(ours, [rows([0, 2, 4], [b"a", None, None])]) == (2, ["1 records differ, the first at 2"])
    assert compare(ours, [rows([0, 2, 4, 5], [b"a", b"", None, b"x"])])[1] == [
        "1 records of Kafka are missing, the first at 5"
    ]


def test_kafka_may_have_fewer_records_only_where_it_compacts() -> None:
    ours = rows([0, 2, 4])
    assert compare(ours, [ours.slice(1)]) == (2, ["1 archived records are not in Kafka"])
    assert compare(ours, [ours.slice(1)], subset=True) == (2, [])
    assert compare(ours, [rows([2], [b"other"])], subset=True)[1] == ["1 records differ, the first at 2"]


def test_sample_is_the_same_every_time_and_never_empty() -> None:
    segments = [replace(stored(rows([0]))[0], path=str(i)) for i in range(100)]
    assert sampled(segments, 1) == segments
    assert sampled(segments, 0.3) == sampled(segments, 0.3)
    assert len(sampled(segments, 0.3)) == 30
    assert len(sampled(segments, 0)) == 1
    assert sampled([], 0.5) == []


def test_ranges_without_segment_or_gap_are_named() -> None:
    segment = stored(rows([4]), OffsetRange(0, 4, 6))[0]
    commit = ArchiveCommit(1, "c", "t", "id", "r", {0: (0, 10)}, (OffsetRange(0, 0, 3),), (segment,), "")
    assert list(empty_ranges([commit])) == [("id", OffsetRange(0, 3, 4)), ("id", OffsetRange(0, 6, 10))]
