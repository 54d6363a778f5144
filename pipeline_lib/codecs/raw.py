"""The codec "raw": a record is one event, and its value is kept as it is."""

import pyarrow as pa

from pipeline_lib.codecs.base import Decoded, Field, Row


class RawCodec:
    """One event a record, at the record's own time, with the field `value` (binary; null for a tombstone)."""

    tells_event_time = False

    def schema(self) -> list[Field]:
        """The one field `value`."""
        return [("value", pa.binary())]

    def rows(self, value: bytes | None, timestamp_ms: int) -> list[Row]:
        """The record itself. Never raises."""
        return [(timestamp_ms, value)]

    def decode(self, value: bytes | None, timestamp_ms: int) -> list[Decoded]:
        """The record itself. Never raises."""
        return [Decoded(timestamp_ms, {"value": value})]

    def event_time_range(self, value: bytes | None, timestamp_ms: int) -> tuple[int, int] | None:
        """Always None: an undecoded value says nothing about when its events happened."""
        return None
