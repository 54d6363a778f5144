"""Events -> HBase rows: one pure function for serve and replay alike.

Row key: salt | event_time (ms, 8 bytes, big-endian) | the key fields, joined by a zero byte. The salt is a byte that the
key fields decide, so the same event has the same row wherever and whenever it is written. Every cell of a row has the
timestamp of the Kafka record, cut to CELL_STEP_MS: a replayed cell never hides a newer one, and rows of one step can be
sent together, since HBase's Thrift 1 takes one timestamp a request (a request a row: 749 rows/s instead of 26,000).
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import pyarrow as pa
from pydantic import Field, field_validator

from pipeline_lib.config import Settings
from pipeline_lib.errors import ConfigError

CELL_STEP_MS = 60_000
"""Rows of different records that fall into one step have equal timestamps: the later written one then stands, and
within a partition that is the later record."""
MAX_CELL_BYTES = 10 << 20
"""HBase's own default limit of a cell (hbase.client.keyvalue.maxsize)."""
MAX_KEY_BYTES = 32_767
"""HBase's limit of a row key."""
PACKED = b"p"
_PACKED_FORMAT = 1
_TIME = struct.Struct(">q")


class HBaseVersion(Settings):
    """A version of a table's schema: `columns` has one column a field, `packed` has all fields in one."""

    table: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    layout: Literal["columns", "packed"] = "columns"
    fields: list[str] = Field(default=[], description="none: all that the codec gives")


class HBaseMapping(Settings):
    """How a topic's events become rows; the same in both clusters."""

    salt_buckets: int = Field(default=8, ge=2, le=256, description="regions that the tables are split into at first")
    key: list[str] = Field(min_length=1, description="fields that, with the event time, tell an event from all others")
    family: str = Field(default="e", pattern=r"^[A-Za-z0-9_]+$")
    versions: dict[str, HBaseVersion] = Field(min_length=1)

    @field_validator("salt_buckets")
    @classmethod
    def _is_power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("a power of two, so that regions end where buckets do")
        return value

    def version(self, name: str) -> HBaseVersion:
        """Raises ConfigError where there is no version of this name."""
        if name not in self.versions:
            raise ConfigError(f"HBase version {name!r} is not declared; declared: {', '.join(self.versions)}")
        return self.versions[name]

    @property
    def salts(self) -> list[bytes]:
        """The first byte of each bucket's row keys, in order; each region begins with one of them."""
        return [bytes([bucket * 256 // self.salt_buckets]) for bucket in range(self.salt_buckets)]


class Row(NamedTuple):
    """A row and the timestamp (ms) of all its cells."""

    key: bytes
    cells: dict[bytes, bytes]
    timestamp: int


def row_key(mapping: HBaseMapping, event_time_ms: int, parts: Sequence[str | None]) -> bytes:
    """The key of an event's row; a null part is an empty one."""
    name = b"\0".join((part or "").encode() for part in parts)
    salt = zlib.crc32(name) % mapping.salt_buckets * 256 // mapping.salt_buckets
    return bytes([salt]) + _TIME.pack(event_time_ms) + name


def event_time_of(key: bytes) -> int:
    """The event time (ms) in a row key. Raises ValueError where the key is none of a mapping's."""
    if len(key) < 9:
        raise ValueError(f"row key {key!r} is too short to hold a salt and an event time")
    return int(_TIME.unpack_from(key, 1)[0])


def rows(events: pa.RecordBatch, mapping: HBaseMapping, version: HBaseVersion) -> list[Row]:
    """The rows of decoded events, in their order; one without any cell is none to HBase and left out.

    Args:
        events: rows of the events table (landing.rows), those of quality `ok` only.
    """
    times = _ms(events.column("event_time")).to_pylist()
    stamps = [time - time % CELL_STEP_MS for time in _ms(events.column("_timestamp")).to_pylist()]
    names = [events.column(name).cast(pa.string()).to_pylist() for name in mapping.key]
    keys = [row_key(mapping, time, parts) for time, *parts in zip(times, *names, strict=True)]
    make = _columns if version.layout == "columns" else _packed
    made = zip(keys, make(events, mapping, version), stamps, strict=True)
    return [Row(*row) for row in made if row[1]]


def _columns(events: pa.RecordBatch, mapping: HBaseMapping, version: HBaseVersion) -> Iterator[dict[bytes, bytes]]:
    columns = []
    for name in field_names(events.schema, version):
        column = events.column(name)
        encode = _encoder(column.type)
        columns.append([None if value is None else encode(value) for value in _values(column)])
    qualifiers = [f"{mapping.family}:{name}".encode() for name in field_names(events.schema, version)]
    for values in zip(*columns, strict=True):
        yield {name: value for name, value in zip(qualifiers, values, strict=True) if value is not None}


def _packed(events: pa.RecordBatch, mapping: HBaseMapping, version: HBaseVersion) -> Iterator[dict[bytes, bytes]]:
    columns = [_values(events.column(name)) for name in field_names(events.schema, version)]
    qualifier, encode = mapping.family.encode() + b":" + PACKED, msgspec.msgpack.Encoder().encode
    for values in zip(*columns, strict=True):
        yield {qualifier: encode((_PACKED_FORMAT, *values))}


def field_names(schema: pa.Schema, version: HBaseVersion) -> list[str]:
    """The fields of a version's rows, in order. Raises ConfigError where the codec does not give one of them."""
    known = [field.name for field in schema if not _is_own(field.name)]
    if missing := [name for name in version.fields if name not in known]:
        raise ConfigError(f"HBase table {version.table}: the codec gives no field {missing}; it gives: {known}")
    return version.fields or known


def _is_own(name: str) -> bool:
    return name.startswith("_") or name in ("event_time", "quality", "date", "hour")


def decode_row(
    cells: dict[bytes, bytes], schema: pa.Schema, mapping: HBaseMapping, version: HBaseVersion
) -> dict[str, Any]:
    """The fields of a stored row, whatever the version's layout; times as ms. Absent cells are None.

    Raises:
        ValueError: the cells are none of this version's.
    """
    names = field_names(schema, version)
    if version.layout == "packed":
        try:
            form, *values = msgspec.msgpack.decode(cells[mapping.family.encode() + b":" + PACKED], type=list)
        except (KeyError, msgspec.DecodeError) as error:
            raise ValueError(f"no packed row of table {version.table}: {error!r}") from None
        if form != _PACKED_FORMAT:
            raise ValueError(f"packed row of table {version.table} has format {form}; this Lode reads {_PACKED_FORMAT}")
        return dict(zip(names, [*values, *[None] * (len(names) - len(values))], strict=False))
    found = {}
    for name in names:
        value = cells.get(f"{mapping.family}:{name}".encode())
        found[name] = None if value is None else _decoder(schema.field(name).type)(value)
    return found


def _ms(column: pa.Array) -> pa.Array:
    return column.cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())


def _values(column: pa.Array) -> list[Any]:
    """Python values that msgpack and JSON know: times as ms, maps as dictionaries."""
    if pa.types.is_timestamp(column.type):
        column = _ms(column)
    values = column.to_pylist()
    return [value and dict(value) for value in values] if pa.types.is_map(column.type) else values


def _encoder(kind: pa.DataType) -> Callable[[Any], bytes]:
    """As HBase's own Bytes.toBytes does; JSON for what has parts."""
    if pa.types.is_string(kind):
        return str.encode
    if pa.types.is_boolean(kind):
        return lambda value: b"\xff" if value else b"\0"
    if form := _form(kind):
        return form.pack
    return msgspec.json.encode


def _decoder(kind: pa.DataType) -> Callable[[bytes], Any]:
    if pa.types.is_string(kind):
        return bytes.decode
    if pa.types.is_boolean(kind):
        return lambda value: value != b"\0"
    if form := _form(kind):
        return lambda value: form.unpack(value)[0]
    return msgspec.json.decode


def _form(kind: pa.DataType) -> struct.Struct | None:
    if pa.types.is_float64(kind):
        return struct.Struct(">d")
    if pa.types.is_int32(kind):
        return struct.Struct(">i")
    return _TIME if pa.types.is_int64(kind) or pa.types.is_timestamp(kind) else None


def latest(found: Iterable[Row]) -> dict[bytes, Row]:
    """Of rows with one key the one that stands once all are written in this order: the greatest timestamp, the later of
    equal ones."""
    kept: dict[bytes, Row] = {}
    for row in found:
        if (before := kept.get(row.key)) is None or before.timestamp <= row.timestamp:
            kept[row.key] = row
    return kept


def put_batches(found: Iterable[Row], max_rows: int, max_bytes: int) -> Iterator[list[Row]]:
    """Rows as requests: of one timestamp each, one row a key, bounded in rows and in bytes (a single larger row goes
    alone). Rows with one key but several timestamps are not made one: each is a cell version of its own to HBase."""
    by_time: dict[int, dict[bytes, Row]] = {}
    for row in found:
        same = by_time.setdefault(row.timestamp, {})
        before = same.get(row.key)  # its cells that this row has not would stand if the two came in two requests
        same[row.key] = row._replace(cells=before.cells | row.cells) if before else row
    for _, same in sorted(by_time.items()):
        batch: list[Row] = []
        size = 0
        for row in same.values():
            weight = row_bytes(row)
            if batch and (len(batch) >= max_rows or size + weight > max_bytes):
                yield batch
                batch, size = [], 0
            batch.append(row)
            size += weight
        yield batch


def row_bytes(row: Row) -> int:
    """About what a row takes on the wire."""
    return sum(len(row.key) + len(name) + len(value) + 12 for name, value in row.cells.items())


def too_large(row: Row) -> bool:
    """Whether HBase would refuse the row for the size of its key or of one of its cells."""
    return len(row.key) > MAX_KEY_BYTES or any(
        len(row.key) + len(name) + len(value) + 24 > MAX_CELL_BYTES for name, value in row.cells.items()
    )
