"""What a codec is: the words that turn the value of a Kafka record into typed events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

EVENT_TIME_MIN: Final = 946_684_800_000  # 2000-01-01T00:00Z in ms: anything older is a clock that was never set
EVENT_TIME_MAX: Final = 4_102_444_800_000  # 2100-01-01T00:00Z in ms: anything later is seconds or µs taken for ms
MAX_VALUE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64

Field = tuple[str, Any]
"""A field of an event: its name and its Arrow type."""

Row = tuple[Any, ...]
"""An event as `(event time in ms, value of the first field, ...)`, in the order of the codec's schema."""


class Undecodable(ValueError):
    """The record cannot be used as a whole; `reason` says why, and starts with a short stable code.

    The codes are `too_large`, `too_deep`, `not_utf8`, `not_json`, `duplicate_key`, `tombstone`, `missing`,
    `wrong_type`, `out_of_range`, `empty`, `no_visitors`, `no_events` and `no_decisions`. A detail may follow the code.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """One event: when it happened (ms since the epoch, UTC) and its fields, as values that Arrow can convert."""

    event_time: int
    fields: dict[str, object]


@dataclass(frozen=True)
class CodecSettings:
    """How the events of a topic are coded.

    `event_time_field` names where the event time is, `event_time_format` is "ms", "s" or "iso8601". `id_field` names
    the declared field that may not be null (empty: none). `fields` declares names and Arrow types. Only the codec
    "json" reads anything but the name: the other codecs fix their fields.
    """

    name: str
    event_time_field: str = ""
    event_time_format: str = "ms"
    id_field: str = ""
    fields: Sequence[Field] = ()


class Codec(Protocol):
    """Turns the value of a record into events. A codec holds no state that a call changes."""

    tells_event_time: bool
    """Whether event_time_range ever gives anything: bulk work need not ask a codec that never does."""

    def schema(self) -> list[Field]:
        """The fields of an event and their Arrow types."""

    def rows(self, value: bytes | None, timestamp_ms: int) -> list[Row]:
        """The events of a record as plain tuples: what `decode` gives, cheap enough for bulk work. Same errors."""

    def decode(self, value: bytes | None, timestamp_ms: int) -> list[Decoded]:
        """The events of a record, at least one. `timestamp_ms` is the record's own time.

        Raises Undecodable when any part of the record cannot be used: a record is never half used.
        """

    def event_time_range(self, value: bytes | None, timestamp_ms: int) -> tuple[int, int] | None:
        """The earliest and latest event time (ms) of a record; None where it is undecodable or not cheaply known."""
