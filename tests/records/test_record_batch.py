"""Kafka record batches: what is encoded here by the letter of the format comes back, and damage is refused."""

import gzip
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import cramjam
import google_crc32c
import lz4.frame  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.errors import CorruptBatch
from pipeline_lib.records.batch import GROUP_BYTES, MAX_DECOMPRESSED, RAW_RECORD, decode, drop_uncommitted, split

I64 = 1 << 63
EVERYTHING = (0, I64 - 1)


@dataclass(frozen=True)
class Record:
    offset: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    def row(self, kind: int = 0, timestamp: int | None = None) -> tuple[object, ...]:
        """What the decoder has to give for it."""
        moment = self.timestamp if timestamp is None else timestamp
        return self.offset, moment, kind, self.key, self.value, self.headers


def varint(number: int) -> bytes:
    rest = (number << 1 ^ number >> 63) & (1 << 64) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record_body(record: Record, base: int, first_timestamp: int) -> bytes:
    headers = b"".join(sized(key.encode()) + sized(value) for key, value in record.headers)
    body = b"".join(
        [
            b"\0",
            varint(record.timestamp - first_timestamp),
            varint(record.offset - base),
            sized(record.key),
            sized(record.value),
            varint(len(record.headers)),
            headers,
        ]
    )
    return varint(len(body)) + body


def xerial(data: bytes, block: int = 1 << 15) -> bytes:
    parts = [data[at : at + block] for at in range(0, len(data), block)]
    packed = [bytes(cramjam.snappy.compress_raw(part)) for part in parts]
    framed = b"".join(struct.pack(">i", len(part)) + part for part in packed)
    return b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + framed


COMPRESS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, gzip.compress),
    "snappy-raw": (2, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "snappy-xerial": (2, xerial),
    "lz4": (3, lz4.frame.compress),
    "zstd": (4, lambda data: bytes(cramjam.zstd.compress(data))),
}


def sealed(base: int, after_crc: bytes) -> bytes:
    """The batch with a length and a checksum that fit."""
    return struct.pack(">qiibI", base, len(after_crc) + 9, 0, 2, google_crc32c.value(after_crc)) + after_crc


def after_crc(
    payload: bytes,
    count: int,
    last_delta: int,
    attributes: int = 0,
    producer: int = -1,
    times: tuple[int, int] = (0, 0),
) -> bytes:
    return struct.pack(">hiqqqhii", attributes, last_delta, *times, producer, 0, -1, count) + payload


def encode(
    records: Sequence[Record],
    codec: str = "none",
    *,
    base: int | None = None,
    last_delta: int | None = None,
    attributes: int = 0,
    producer: int = -1,
    append_time: int | None = None,
) -> bytes:
    base = (records[0].offset if records else 0) if base is None else base
    first = records[0].timestamp if records else 0
    latest = max((record.timestamp for record in records), default=-1)
    if last_delta is None:
        last_delta = (records[-1].offset if records else base) - base
    number, compress = COMPRESS[codec]
    payload = compress(b"".join(record_body(record, base, first) for record in records))
    if append_time is not None:
        attributes, latest = attributes | 8, append_time
    return sealed(base, after_crc(payload, len(records), last_delta, attributes | number, producer, (first, latest)))


def rows(batches: Sequence[pa.RecordBatch]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(RAW_RECORD)
        columns = [batch.column(name) for name in RAW_RECORD.names]
        columns[1] = columns[1].cast(pa.int64())  # Python's datetime ends at the year 9999
        for *scalars, headers in zip(*(column.to_pylist() for column in columns), strict=True):
            found.append((*scalars, tuple((pair["key"], pair["value"]) for pair in headers)))
    return found


def read(response: bytes, span: tuple[int, int] = EVERYTHING) -> list[tuple[object, ...]]:
    return rows(list(decode(drop_uncommitted(split(response), []), *span)))


maybe_bytes = st.none() | st.binary(max_size=40) | st.sampled_from([b"", b"x" * 40_000, bytes(range(256)) * 300])
header_keys = st.sampled_from(["", "a", "a", "trace-id", "ключ"]) | st.text(max_size=8)
header_lists = st.lists(st.tuples(header_keys, st.none() | st.binary(max_size=20)), max_size=5).map(tuple)
moments = st.integers(-(1 << 62), (1 << 62) - 1) | st.integers(-1, 2_000_000_000_000)


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    at = draw(st.integers(0, 1 << 40))
    records = []
    for _ in range(draw(st.integers(1, 12))):
        records.append(Record(at, draw(moments), draw(maybe_bytes), draw(maybe_bytes), draw(header_lists)))
        at += draw(st.sampled_from([1, 1, 1, 2, 1000]))
    return records


@settings(max_examples=60, deadline=None)
@given(record_lists(), st.sampled_from(sorted(COMPRESS)), st.none() | moments, st.integers(0, 1000), st.integers(0, 9))
def test_decode_gives_back_what_was_encoded(
    records: list[Record], codec: str, append_time: int | None, lead: int, tail: int
) -> None:
    base = max(0, records[0].offset - lead)  # compaction keeps the borders of a batch and takes records out of it
    last_delta = records[-1].offset - base + tail
    response = encode(records, codec, base=base, last_delta=last_delta, append_time=append_time)
    kind = int(append_time is not None)
    assert read(response) == [record.row(kind, append_time) for record in records]
    assert split(response)[0].next_offset == records[-1].offset + tail + 1


@settings(max_examples=60, deadline=None)
@given(record_lists(), st.data(), st.sampled_from(sorted(COMPRESS)))
def test_any_cut_is_the_slice(records: list[Record], data: st.DataObject, codec: str) -> None:
    half = len(records) // 2
    response = b"".join(encode(part, codec) for part in (records[:half], records[half:]) if part)
    near = st.integers(records[0].offset - 1, records[-1].offset + 2)
    since, until = data.draw(near), data.draw(near)
    expected = [record.row() for record in records if since <= record.offset < until]
    assert read(response, (since, until)) == expected


def test_many_batches_become_several_groups_in_order() -> None:
    big = b"v" * (GROUP_BYTES // 4)
    records = [Record(at, at, None, big) for at in range(10)]
    response = b"".join(encode([record], "zstd") for record in records)
    found = list(decode(split(response), 0, 10))
    assert len(found) > 1
    assert rows(found) == [record.row() for record in records]


def test_an_incomplete_last_batch_is_left_out_and_nothing_else() -> None:
    first, second = encode([Record(0, 1, b"a")]), encode([Record(1, 1, b"b")])
    for cut in range(len(second)):
        assert read(first + second[:cut]) == [Record(0, 1, b"a").row()]
    assert len(read(first + second)) == 2


def test_a_batch_that_compaction_emptied_only_moves_on() -> None:
    (batch,) = split(encode([], base=10, last_delta=4))
    assert (batch.next_offset, drop_uncommitted([batch], [])) == (15, [])


# Damage


class Refused(Exception):
    """The reference decoder's opinion."""


def reference(response: bytes) -> list[tuple[object, ...]]:
    """What an uncompressed batch says, read as slowly and as literally as can be."""
    base, length, _, _, _ = struct.unpack_from(">qiibI", response)
    assert length + 12 == len(response)
    fields = struct.unpack_from(">hiqqqhii", response, 21)
    attributes, last_delta, first, latest, _, _, _, count = fields
    pos, found, previous = 61, [], -1

    def number(stop: int) -> int:
        nonlocal pos
        value = 0
        for shift in range(0, 70, 7):
            if pos >= stop:
                raise Refused
            byte = response[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                value &= (1 << 64) - 1
                return wrapped(value >> 1 ^ -(value & 1))
        raise Refused

    def piece(stop: int, nullable: bool) -> bytes | None:
        nonlocal pos
        size = number(stop)
        if size == -1 and nullable:
            return None
        if not 0 <= size <= stop - pos:
            raise Refused
        pos += size
        return response[pos - size : pos]

    if count < 0 or last_delta < 0 or count > last_delta + 1:
        raise Refused
    for _ in range(count):
        size = number(len(response))
        if not 1 <= size <= len(response) - pos:
            raise Refused
        stop = pos + size
        pos += 1
        moment = wrapped(first + number(stop))
        delta = number(stop)
        if not previous < delta <= last_delta:
            raise Refused
        previous = delta
        key, value = piece(stop, True), piece(stop, True)
        headers = []
        pairs = number(stop)
        if not 0 <= pairs <= stop - pos:
            raise Refused
        for _ in range(pairs):
            name = piece(stop, False)
            assert name is not None
            headers.append((name, piece(stop, True)))
        if pos != stop:
            raise Refused
        found.append([base + delta, moment, key, value, headers])
    if count and pos != len(response):
        raise Refused
    if attributes & 32:
        return []
    try:
        return [
            (offset, latest if attributes & 8 else moment, (attributes >> 3) & 1, key, value,
             tuple((name.decode(), data) for name, data in headers))
            for offset, moment, key, value, headers in found
        ]  # fmt: skip
    except UnicodeDecodeError:
        raise Refused from None


def wrapped(number: int) -> int:
    return (number + I64) % (2 * I64) - I64


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    where, many = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 8))
    what = draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat", "end"]))
    filler = draw(st.binary(min_size=many, max_size=many) | st.sampled_from([b"\xff" * 10, b"\x80" * 11, b"\0", b"\1"]))
    bit = draw(st.integers(0, 7))

    def mutate(data: bytes) -> bytes:
        if not data:
            return filler
        at = int(where * len(data))
        if what == "flip":
            return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        if what == "set":
            return data[:at] + filler[: len(data) - at] + data[at + len(filler) :]
        if what == "cut":
            return data[:at] + data[at + many :]
        if what == "insert":
            return data[:at] + filler + data[at:]
        if what == "repeat":
            return data[:at] + data[at : at + many] + data[at:]
        return data[:at]

    return mutate


small_records = st.lists(
    st.tuples(
        moments,
        st.none() | st.binary(max_size=6),
        st.none() | st.binary(max_size=6),
        st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: [Record(2 * at, *part) for at, part in enumerate(parts)])


@settings(max_examples=600, deadline=None)
@given(small_records, st.lists(mutations(), min_size=1, max_size=3))
def test_damage_behind_the_checksum_is_refused_or_read_by_the_letter(
    records: list[Record], changes: list[Callable[[bytes], bytes]]
) -> None:
    body = encode(records)[21:]
    for change in changes:
        body = change(body)
    if len(body) < 40:
        return
    response = sealed(0, body)
    if body[1] & 7:  # another codec: only that it ends, and in order
        assert ended_well(response)
        return
    try:
        expected: list[tuple[object, ...]] | None = reference(response)
    except Refused:
        expected = None
    try:
        found: list[tuple[object, ...]] | None = read(response)
    except CorruptBatch:
        found = None
    if body[1] & 32 or struct.unpack_from(">i", body, 36)[0] == 0:
        assert not found
    else:
        assert found == expected


@settings(max_examples=400, deadline=None)
@given(small_records, st.sampled_from(sorted(COMPRESS)), st.lists(mutations(), min_size=1, max_size=2))
def test_damage_in_compressed_data_is_refused_or_within_bounds(
    records: list[Record], codec: str, changes: list[Callable[[bytes], bytes]]
) -> None:
    body = encode(records, codec)[21:]
    header, payload = body[:40], body[40:]
    for change in changes:
        payload = change(payload)
    assert ended_well(sealed(0, header + payload))


def ended_well(response: bytes) -> bool:
    try:
        batches = split(response)
        found = rows(list(decode(batches, *EVERYTHING)))
    except CorruptBatch:
        return True
    offsets = [int(str(row[0])) for row in found]
    inside = all(batches[0].base_offset <= at < batches[0].next_offset for at in offsets)
    return inside and len(found) == sum(batch.count for batch in batches) and offsets == sorted(set(offsets))


@settings(max_examples=300, deadline=None)
@given(small_records, st.sampled_from(sorted(COMPRESS)), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_on_the_way_is_refused(records: list[Record], codec: str, where: float, bit: int) -> None:
    response = encode(records, codec)
    at = 16 + int(where * (len(response) - 16))  # magic, checksum and all that it protects
    with pytest.raises(CorruptBatch, match="offset"):
        read(response[:at] + bytes([response[at] ^ 1 << bit]) + response[at + 1 :])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_crashes(noise: bytes) -> None:
    with suppress(CorruptBatch):
        assert read(noise) == []


def test_batches_out_of_order_are_refused() -> None:
    # A batch's base offset stands outside its checksum: only its neighbours can tell that it is wrong.
    first, second = encode([Record(0, 1), Record(1, 1)]), encode([Record(2, 1), Record(3, 1)])
    assert len(read(first + second)) == 4
    for wrong in (0, 1, -1, -(1 << 63)):
        with pytest.raises(CorruptBatch, match="offset"):
            read(first + struct.pack(">q", wrong) + second[8:])


@pytest.mark.parametrize("base", [I64 - 1, I64 - 2, -1, -I64])
def test_an_impossible_base_offset_is_refused(base: int) -> None:
    with pytest.raises(CorruptBatch, match="offset"):
        read(struct.pack(">q", base) + encode([Record(5, 1), Record(8, 1)])[8:])


BOMBS: dict[str, Callable[[int], bytes]] = {
    "gzip": lambda size: gzip.compress(bytes(size), 6),
    "lz4": lambda size: lz4.frame.compress(bytes(size)),
    "zstd": lambda size: bytes(cramjam.zstd.compress(bytes(size))),
    "snappy-raw": lambda size: bytes(cramjam.snappy.compress_raw(bytes(size))),
    "snappy-xerial": lambda size: xerial(bytes(size), 16 << 20),
    "snappy-length": lambda size: varint_unsigned(size) + b"\0",
}


def varint_unsigned(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize("kind", sorted(BOMBS))
def test_a_decompression_bomb_is_refused(kind: str) -> None:
    payload = BOMBS[kind](MAX_DECOMPRESSED + 1)
    codec = COMPRESS.get(kind, (2,))[0]
    with pytest.raises(CorruptBatch, match="do not decompress"):
        read(sealed(7, after_crc(payload, 1, 0, codec)))


def test_absurd_numbers_are_refused_at_once() -> None:
    huge = struct.pack(">i", (1 << 31) - 1)
    body = bytearray(encode([Record(0, 1)])[21:])
    body[2:6] = body[36:40] = huge  # 2^31 - 1 records in 10 bytes: nothing may be allocated for them
    with pytest.raises(CorruptBatch):
        read(sealed(0, bytes(body)))
    with pytest.raises(CorruptBatch, match="leave the batch's range"):
        read(encode([Record(5, 1)], base=0, last_delta=4))


@pytest.mark.parametrize("magic", [0, 1, 3])
def test_other_message_formats_are_named(magic: int) -> None:
    response = bytearray(encode([Record(3, 1)]))
    response[16] = magic
    with pytest.raises(CorruptBatch, match=f"offset 3: message format v{magic}"):
        split(bytes(response))


def test_a_header_key_that_is_no_text_is_refused() -> None:
    response = encode([Record(3, 1, headers=(("ab", b""),))]).replace(b"ab", b"a\xff")
    with pytest.raises(CorruptBatch, match="not UTF-8"):
        read(sealed(3, response[21:]))


# Transactions

TRANSACTIONAL, CONTROL = 16, 32


def transactional(offset: int, producer: int, attributes: int = TRANSACTIONAL) -> bytes:
    return encode([Record(offset, 1, b"p%d" % producer)], attributes=attributes, producer=producer)


def marker(offset: int, producer: int) -> bytes:
    return transactional(offset, producer, TRANSACTIONAL | CONTROL)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, int]], list[int]]:
    """A log of interleaved producers: its batches, the aborted transactions, the offsets that are committed."""
    batches, aborted, committed = [], [], []
    pending: dict[int, list[int]] = {}
    for at in range(draw(st.integers(1, 30))):
        producer = draw(st.integers(0, 3))
        if producer == 0:
            batches.append(transactional(at, -1, 0))
            committed.append(at)
        elif producer in pending and draw(st.booleans()):
            batches.append(marker(at, producer))
            offsets = pending.pop(producer)
            if draw(st.booleans()):
                committed += offsets
            else:
                aborted.append((producer, offsets[0]))
        else:
            batches.append(transactional(at, producer))
            pending.setdefault(producer, []).append(at)
    end = min((offsets[0] for offsets in pending.values()), default=len(batches))
    inside = [at for at in committed if at < end]
    return batches[:end], [entry for entry in aborted if entry[1] < end], sorted(inside)


@settings(max_examples=200, deadline=None)
@given(logs(), st.data())
def test_aborted_transactions_are_left_out(
    log: tuple[list[bytes], list[tuple[int, int]], list[int]], data: st.DataObject
) -> None:
    batches, aborted, committed = log
    start = data.draw(st.integers(0, len(batches)))  # a fetch may start in the midst of a transaction
    listed = data.draw(st.permutations([entry for entry in aborted if _marker_after(batches, entry) >= start]))
    found = drop_uncommitted(split(b"".join(batches[start:])), listed)
    assert [batch.base_offset for batch in found] == [at for at in committed if at >= start]


def _marker_after(batches: Sequence[bytes], entry: tuple[int, int]) -> int:
    for batch in split(b"".join(batches)):
        if batch.control and batch.producer_id == entry[0] and batch.base_offset > entry[1]:
            return batch.base_offset
    return len(batches)


def test_one_producer_aborts_commits_and_aborts() -> None:
    log = b"".join(
        [transactional(0, 1), transactional(1, 2), marker(2, 1), transactional(3, 1), marker(4, 1), transactional(5, 1)]
    ) + b"".join([marker(6, 2), transactional(7, -1, 0), marker(8, 1)])
    kept = drop_uncommitted(split(log), [(1, 0), (1, 5)])
    assert [batch.base_offset for batch in kept] == [1, 3, 7]


def test_append_time_is_the_time_of_every_record() -> None:
    records = [Record(0, 5), Record(1, -7), Record(2, 9)]
    assert {row[1:3] for row in read(encode(records, append_time=77))} == {(77, 1)}
    assert [row[1:3] for row in read(encode(records))] == [(5, 0), (-7, 0), (9, 0)]


def test_a_record_equals_itself_only() -> None:
    record = Record(1, 2, b"", None, (("a", None), ("a", b"")))
    (found,) = read(encode([record]))
    assert found == record.row()
    assert found != replace(record, key=None).row()
    assert found != replace(record, headers=record.headers[::-1]).row()
