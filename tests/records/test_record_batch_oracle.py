"""Batches that kafka-python's own record layer makes: decoded alike by its reader and by ours."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from pipeline_lib.records.batch import RAW_RECORD, decode, split

Headers = list[tuple[str, bytes | None]]
Part = tuple[int, bytes | None, bytes | None, Headers]

parts = st.lists(
    st.tuples(
        st.integers(0, 1 << 50),
        st.none() | st.binary(max_size=300),
        st.none() | st.binary(max_size=300) | st.just(b"z" * 70_000),
        st.lists(st.tuples(st.text(max_size=6), st.none() | st.binary(max_size=20)), max_size=4),
    ),
    min_size=1,
    max_size=20,
)


def ours(response: bytes) -> list[Part]:
    found: list[Part] = []
    for batch in decode(split(response), 0, 1 << 62):
        columns = [batch.column(name) for name in RAW_RECORD.names]
        columns[1] = columns[1].cast(pa.int64())
        for offset, moment, kind, key, value, headers in zip(*(c.to_pylist() for c in columns), strict=True):
            assert (offset, kind) == (len(found), 0)
            found.append((moment, key, value, [(pair["key"], pair["value"]) for pair in headers]))
    return found


@pytest.mark.parametrize("codec", [0, 1, 3])  # none, gzip, lz4: those that it brings itself
@settings(max_examples=60, deadline=None)
@given(made=parts)
def test_what_kafka_python_writes_is_read(codec: int, made: list[Part]) -> None:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 30)
    for offset, (moment, key, value, headers) in enumerate(made):
        assert builder.append(offset, moment, key, value, headers) is not None
    response = bytes(builder.build())
    theirs = [
        (record.timestamp, record.key, record.value, [(name, data) for name, data in record.headers])
        for record in DefaultRecordBatch(response)
    ]
    assert ours(response) == theirs == made
