"""The one range of time: since (inclusive) to until (exclusive), UTC."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from pipeline_lib.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TimeSpan:
    """A half-open range of UTC time.

    Examples:
        >>> str(TimeSpan.parse("2026-11-01", "2026-11-03"))
        '2026-11-01T00:00:00Z/2026-11-03T00:00:00Z'
    """

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        if self.since.utcoffset() != timedelta(0) or self.until.utcoffset() != timedelta(0):
            raise ConfigError(f"a span is in UTC: {self.since} to {self.until}")
        if self.since >= self.until:
            raise ConfigError(f"since {self.since.isoformat()} is not before until {self.until.isoformat()}")

    @classmethod
    def parse(cls, since: str, until: str) -> "TimeSpan":
        """The span between two ISO 8601 dates or times; without an offset they are UTC."""
        return cls(parse_time(since), parse_time(until))

    @property
    def since_ms(self) -> int:
        return to_ms(self.since)

    @property
    def until_ms(self) -> int:
        return to_ms(self.until)

    def chunks(self, step: timedelta) -> Iterator["TimeSpan"]:
        """The span cut at multiples of `step` since its start; the last one may be shorter."""
        at = self.since
        while at < self.until:
            end = at + step if step < self.until - at else self.until
            yield TimeSpan(at, end)
            at = end

    def days(self) -> Iterator["TimeSpan"]:
        return self.chunks(timedelta(days=1))

    def whole_days(self) -> tuple[date, date]:
        """The first day, and the one after the last. Raises ConfigError where an end is not midnight."""
        for at in (self.since, self.until):
            if at.time() != time():
                raise ConfigError(f"{format_time(at)} is inside a day: days are taken whole, give dates without a time")
        return self.since.date(), self.until.date()

    def hours(self) -> Iterator["TimeSpan"]:
        return self.chunks(timedelta(hours=1))

    def __str__(self) -> str:
        return f"{format_time(self.since)}/{format_time(self.until)}"


def day_bounds(day: date, zone: str) -> tuple[datetime, datetime]:
    """The UTC times [since, until) of a day in a time zone."""
    local = (datetime.combine(each, time(), ZoneInfo(zone)) for each in (day, day + timedelta(days=1)))
    since, until = (each.astimezone(UTC) for each in local)
    return since, until


def parse_time(text: str) -> datetime:
    """The UTC time that an ISO 8601 date or time names."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(f"{text!r} is not a date or time like 2026-11-01 or 2026-11-01T06:00Z") from None


def to_ms(time: datetime) -> int:
    """Milliseconds since the epoch, rounded up and exact: a record of that many ms is at or after `time`."""
    return -((_EPOCH - time) // timedelta(milliseconds=1))


def format_time(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
