"""The codec "json": a record is one event, a JSON object with declared fields."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from pipeline_lib.codecs.base import EVENT_TIME_MAX, EVENT_TIME_MIN, CodecSettings, Decoded, Field, Row, Undecodable
from pipeline_lib.codecs.strict_json import read_json
from pipeline_lib.errors import ConfigError

Reader = Callable[[str, Any], Any]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class JsonCodec:
    """One JSON object a record. Keys that are not declared are ignored, declared fields that are absent are null.

    A field declared as a timestamp is read in the format of the event time. Raises ConfigError at construction for an
    unknown format or type, a missing event time field, or an id field that is not declared.
    """

    tells_event_time = True

    def __init__(self, settings: CodecSettings) -> None:
        if not settings.event_time_field:
            raise ConfigError("codec json needs the name of the event time field")
        if settings.event_time_format not in _TIME_READERS:
            raise ConfigError(f"event time format {settings.event_time_format!r} is none of {', '.join(_TIME_READERS)}")
        if settings.id_field and settings.id_field not in {name for name, _ in settings.fields}:
            raise ConfigError(f"id field {settings.id_field!r} is not among the declared fields")
        self._time_field = settings.event_time_field
        self._read_time = _TIME_READERS[settings.event_time_format]
        self._id_field = settings.id_field
        self._fields = list(settings.fields)
        self._readers = [(name, _reader(name, kind, self._read_time)) for name, kind in self._fields]

    def schema(self) -> list[Field]:
        """The declared fields."""
        return list(self._fields)

    def rows(self, value: bytes | None, timestamp_ms: int) -> list[Row]:
        """The one event of the record. Raises Undecodable, naming the field that is wrong."""
        document = read_json(value)
        if type(document) is not dict:
            raise Undecodable(f"wrong_type: an object is expected, not {type(document).__name__}")
        moment = document.get(self._time_field)
        if moment is None:
            raise Undecodable(f"missing {self._time_field}")
        if self._id_field and document.get(self._id_field) is None:
            raise Undecodable(f"missing {self._id_field}")
        event_time = self._read_time(self._time_field, moment)
        row = [event_time]
        for name, read in self._readers:
            field = document.get(name)
            row.append(None if field is None else read(name, field))
        return [tuple(row)]

    def decode(self, value: bytes | None, timestamp_ms: int) -> list[Decoded]:
        """The one event of the record. Raises Undecodable, naming the field that is wrong."""
        row = self.rows(value, timestamp_ms)[0]
        return [Decoded(row[0], dict(zip((name for name, _ in self._fields), row[1:], strict=True)))]

    def event_time_range(self, value: bytes | None, timestamp_ms: int) -> tuple[int, int] | None:
        """The event time, twice; None where `decode` would refuse the record."""
        try:
            event_time = self.rows(value, timestamp_ms)[0][0]
        except Undecodable:
            return None
        return event_time, event_time


def _reader(name: str, kind: Any, read_time: Reader) -> Reader:
    if pa.types.is_timestamp(kind):
        if kind.unit != "ms":
            raise ConfigError(f"field {name!r}: a timestamp is kept in milliseconds, not {kind.unit}")
        return read_time
    if kind not in _READERS:
        raise ConfigError(f"field {name!r}: codec json cannot read the type {kind}")
    return _READERS[kind]


def _read_string(name: str, value: Any) -> str:
    if type(value) is not str:
        raise _wrong_type(name, "string", value)
    return value


def _read_bool(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _wrong_type(name, "bool", value)
    return value


def _int_reader(bits: int) -> Reader:
    bound = 1 << (bits - 1)

    def read_int(name: str, value: Any) -> int:
        if type(value) is not int:
            raise _wrong_type(name, f"int{bits}", value)
        if not -bound <= value < bound:
            raise Undecodable(f"out_of_range: {name} does not fit into int{bits}")
        return value

    return read_int


def _read_float(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise _wrong_type(name, "float64", value)
    try:
        return float(value)
    except OverflowError:
        raise Undecodable(f"out_of_range: {name} does not fit into float64") from None


def _read_ms(name: str, value: Any) -> int:
    if type(value) is not int:
        raise _wrong_type(name, "whole milliseconds", value)
    return _sane(name, value)


def _read_seconds(name: str, value: Any) -> int:
    if type(value) not in (int, float):
        raise _wrong_type(name, "seconds", value)
    if not EVENT_TIME_MIN <= value * 1000 < EVENT_TIME_MAX:  # before rounding: round(1e300) is a 300 digit integer
        raise _insane(name)
    # Down, not to the nearest, but only after the noise of a double (0.001 s is 1 ms) has been rounded away.
    return _sane(name, value * 1000 if type(value) is int else math.floor(round(value * 1000, 2)))


def _read_iso8601(name: str, value: Any) -> int:
    try:
        moment = datetime.fromisoformat(_read_string(name, value))
        if moment.tzinfo is None:  # to guess UTC would silently move events by hours
            raise Undecodable(f"wrong_type: {name} has no offset from UTC")
        return _sane(name, (moment - _EPOCH) // timedelta(milliseconds=1))
    except Undecodable:
        raise
    except (ValueError, OverflowError):
        raise _wrong_type(name, "an ISO 8601 date and time", value) from None


def _sane(name: str, moment: int) -> int:
    if not EVENT_TIME_MIN <= moment < EVENT_TIME_MAX:
        raise _insane(name)
    return moment


def _insane(name: str) -> Undecodable:
    return Undecodable(f"out_of_range: {name} is not between 2000 and 2100")


def _wrong_type(name: str, expected: str, value: Any) -> Undecodable:
    return Undecodable(f"wrong_type: {name} should be {expected}, not {type(value).__name__}")


_TIME_READERS: Final[dict[str, Reader]] = {"ms": _read_ms, "s": _read_seconds, "iso8601": _read_iso8601}
_READERS: Final[dict[Any, Reader]] = {
    pa.string(): _read_string,
    pa.bool_(): _read_bool,
    pa.int32(): _int_reader(32),
    pa.int64(): _int_reader(64),
    pa.float64(): _read_float,
}
