"""Kafka record batches (message format v2) to Arrow, in bulk: no Python object is made for a record.

The way of a fetch response: `split` cuts it into batches and checks each CRC32C; `drop_uncommitted` leaves out control
batches and aborted transactions; `decode` decompresses and turns the rest into one Arrow batch of RAW_RECORD rows.
Damage anywhere is a CorruptBatch that names the offset; nothing of a damaged response is used.
Format: https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cramjam
import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline_lib.errors import CorruptBatch
from pipeline_lib.records import kernels

RAW_RECORD = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("timestamp_type", pa.int8(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field(
            "headers", pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), ("value", pa.binary())]))
        ),
    ]
)
"""The columns of a record as Kafka holds it. timestamp_type: 0 set by the producer, 1 by the broker on append."""

GROUP_BYTES = 32 << 20
"""Decompressed bytes at which a group of batches becomes one Arrow batch: enough to make a call worth its cost."""

MAX_DECOMPRESSED = 256 << 20
"""Bytes that one batch may decompress to. A broker accepts 1 MiB by default: even 200-fold compression stays below."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_XERIAL = b"\x82SNAPPY\x00"
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
    """One record batch of a fetch response; `payload` is still compressed."""

    base_offset: int
    last_delta: int
    count: int
    codec: int
    append_time: bool
    transactional: bool
    control: bool
    producer_id: int
    base_timestamp: int
    max_timestamp: int
    payload: memoryview

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_delta + 1


def split(response: bytes | memoryview) -> list[Batch]:
    """Cut the records field of a fetch response into batches; the incomplete one that may end it is left out.

    Raises:
        CorruptBatch: a batch is older than format v2, has a wrong checksum, sizes that cannot be, or does not come
            behind the one before it: the checksum leaves out the base offset, so only its neighbours prove it.
    """
    view = memoryview(response)
    batches = []
    pos = after = 0
    while pos + 17 <= len(view):
        base, length = struct.unpack_from(">qi", view, pos)
        magic = view[pos + 16]
        end = pos + 12 + length
        if magic != 2:
            raise CorruptBatch(f"offset {base}: message format v{magic}; Lode reads v2 (Kafka 0.11 and newer)")
        if length < _HEADER.size - 12:
            raise CorruptBatch(f"offset {base}: batch length {length} is shorter than a batch header")
        if end > len(view):
            break
        batch = _parse(view[pos:end])
        if batch.base_offset < after or batch.next_offset >= 1 << 63:
            raise CorruptBatch(f"offset {base}: batch out of order; its neighbours leave it offsets from {after} on")
        batches.append(batch)
        pos, after = end, batch.next_offset
    return batches


def _parse(view: memoryview) -> Batch:
    base, _, _, _, crc, attributes, last_delta, first, latest, producer, _, _, count = _HEADER.unpack_from(view)
    if google_crc32c.value(bytes(view[21:])) != crc:
        raise CorruptBatch(f"offset {base}: CRC32C does not match; the batch was damaged on disk or on its way")
    codec = attributes & 7
    if codec >= len(_CODECS) or count < 0 or last_delta < 0 or count > last_delta + 1:
        raise CorruptBatch(f"offset {base}: codec {codec}, {count} records, last offset delta {last_delta}")
    return Batch(
        base, last_delta, count, codec, bool(attributes & 8), bool(attributes & 16), bool(attributes & 32),
        producer, first, latest, view[_HEADER.size :],
    )  # fmt: skip


def drop_uncommitted(batches: Iterable[Batch], aborted: Iterable[tuple[int, int]]) -> list[Batch]:
    """The batches that read_committed shows: no control batch, none of an aborted transaction.

    Args:
        batches: of one fetch response, in order.
        aborted: (producer id, first offset) of each aborted transaction that the same response lists.
    """
    pending = sorted(aborted, key=lambda entry: entry[1])
    ongoing: set[int] = set()
    kept = []
    for batch in batches:
        while pending and pending[0][1] < batch.next_offset:
            ongoing.add(pending.pop(0)[0])
        if batch.control:
            ongoing.discard(batch.producer_id)  # commit or abort: either ends the producer's transaction
        elif not (batch.transactional and batch.producer_id in ongoing) and batch.count:
            kept.append(batch)
    return kept


def decode(batches: Sequence[Batch], since: int, until: int) -> Iterator[pa.RecordBatch]:
    """The records with since <= offset < until, as RAW_RECORD rows in offset order, about GROUP_BYTES at a time.

    Raises:
        CorruptBatch: a batch does not decompress, decompresses to too much, or holds malformed records.
    """
    scratch = np.empty(GROUP_BYTES + MAX_DECOMPRESSED, np.uint8)  # virtual memory: pages are taken as they are written
    view = memoryview(scratch.data)
    at, group, borders = 0, list[Batch](), list[tuple[int, int]]()
    for batch in batches:
        end = at + _decompress(batch, view[at : at + MAX_DECOMPRESSED])
        group.append(batch)
        borders.append((at, end))
        at = end
        if at >= GROUP_BYTES:
            yield _to_arrow(group, scratch[:at], borders, since, until)
            at, group, borders = 0, [], []
    if group:
        yield _to_arrow(group, scratch[:at], borders, since, until)


def _to_arrow(
    batches: Sequence[Batch], data: Bytes, borders: Sequence[tuple[int, int]], since: int, until: int
) -> pa.RecordBatch:
    headers_of = [_measure(data, batch, begin, end) for batch, (begin, end) in zip(batches, borders, strict=True)]
    rows, header_rows = sum(batch.count for batch in batches), sum(headers_of)
    offsets, timestamps, header_counts = (np.empty(rows, np.int64) for _ in range(3))
    kinds = np.empty(rows, np.int8)
    fields, headers = np.empty((4, rows), np.int64), np.empty((4, header_rows), np.int64)
    i = j = 0
    for batch, (begin, end) in zip(batches, borders, strict=True):
        first = i
        i, j = kernels.fill(
            data, begin, end, batch.count, batch.base_offset, batch.base_timestamp,
            offsets, timestamps, fields, header_counts, headers, i, j,
        )  # fmt: skip
        kinds[first:i] = batch.append_time
        if batch.append_time:
            timestamps[first:i] = batch.max_timestamp
    header_ends = np.zeros(rows + 1, np.int32)
    np.cumsum(header_counts, out=header_ends[1:])
    pairs = pa.StructArray.from_arrays(
        [_header_keys(data, headers, offsets, header_ends), _column(data, headers[2], headers[3], pa.binary())],
        fields=list(RAW_RECORD.field("headers").type.value_type),
    )
    columns = [
        pa.array(offsets),
        pa.array(timestamps).cast(RAW_RECORD.field("timestamp").type),
        pa.array(kinds),
        _column(data, fields[0], fields[1], pa.binary()),
        _column(data, fields[2], fields[3], pa.binary()),
        pa.ListArray.from_arrays(pa.array(header_ends), pairs, type=RAW_RECORD.field("headers").type),
    ]
    low, high = np.searchsorted(offsets, [since, until])
    return pa.RecordBatch.from_arrays(columns, schema=RAW_RECORD).slice(int(low), max(0, int(high - low)))


def _decompress(batch: Batch, out: memoryview) -> int:
    try:
        return _decompress_into(batch, out)
    except (cramjam.DecompressionError, ValueError, OSError) as error:
        raise CorruptBatch(
            f"offset {batch.base_offset}: {len(batch.payload)} bytes of {_CODECS[batch.codec]} do not decompress, or to "
            f"more than {len(out)} bytes: {error}"
        ) from None


def _decompress_into(batch: Batch, out: memoryview) -> int:
    payload = batch.payload
    if batch.codec == 0:
        out[: len(payload)] = payload
        return len(payload)
    if batch.codec == 2:
        return _unsnappy(payload, out)
    module = {1: cramjam.gzip, 3: cramjam.lz4, 4: cramjam.zstd}[batch.codec]
    return int(module.decompress_into(payload, out))


def _unsnappy(payload: memoryview, out: memoryview) -> int:
    """Snappy as Java producers write it: an 8-byte magic, two versions, then (length, block) pairs; others write one
    plain block."""
    if payload[:8] != _XERIAL:
        return int(cramjam.snappy.decompress_raw_into(payload, out))
    pos, at = 16, 0
    while pos < len(payload):
        (length,) = struct.unpack_from(">i", payload, pos) if pos + 4 <= len(payload) else (-1,)
        if length < 0 or length > len(payload) - pos - 4:
            raise ValueError(f"snappy block of {length} bytes at {pos}")
        at += int(cramjam.snappy.decompress_raw_into(payload[pos + 4 : pos + 4 + length], out[at:]))
        pos += 4 + length
    return at


def _measure(data: Bytes, batch: Batch, begin: int, end: int) -> int:
    headers = int(kernels.measure(data, begin, end, batch.count, batch.last_delta))
    if headers < 0:
        raise CorruptBatch(f"offset {batch.base_offset}: {kernels.REASONS[headers]}")
    return headers


def _column(data: Bytes, starts: Int64s, lengths: Int64s, arrow_type: pa.DataType) -> pa.Array:
    absent = lengths < 0
    out = np.empty(int(lengths[~absent].sum()), np.uint8)
    ends = np.empty(len(starts) + 1, np.int32)
    kernels.gather(data, starts, lengths, out, ends)
    missing = int(absent.sum())
    valid = pa.py_buffer(np.packbits(~absent, bitorder="little").tobytes()) if missing else None
    return pa.Array.from_buffers(arrow_type, len(starts), [valid, pa.py_buffer(ends), pa.py_buffer(out)], missing)


def _header_keys(data: Bytes, headers: Int64s, offsets: Int64s, header_ends: npt.NDArray[np.int32]) -> pa.Array:
    keys = _column(data, headers[0], headers[1], pa.string())
    try:
        keys.validate(full=True)
    except pa.ArrowInvalid as error:
        raise CorruptBatch(f"offsets {offsets[0]} to {offsets[-1]}: a header key is not UTF-8: {error}") from None
    return keys
