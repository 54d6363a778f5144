"""TimeSpan: half-open, UTC, exact to the millisecond."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.errors import ConfigError
from pipeline_lib.timespan import TimeSpan, format_time, parse_time

DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def ms(text: str) -> int:
    return (parse_time(text) - EPOCH) // timedelta(milliseconds=1)


def test_since_is_inside_and_until_is_not() -> None:
    span = TimeSpan.parse("2026-11-01", "2026-11-03")
    inside = [
        span.since_ms <= ms(text) < span.until_ms
        for text in (
            "2026-10-31T23:59:59",
            "2026-11-01",
            "2026-11-02T23:59:59.999",
            "2026-11-03",
            "2026-11-03T00:00:01",
        )
    ]
    assert inside == [False, True, True, False, False]


@given(times, st.timedeltas(timedelta(microseconds=1), timedelta(days=9)), st.integers(-2, 2))
def test_bounds_in_ms_tell_the_same_as_the_bounds(since: datetime, size: timedelta, near: int) -> None:
    span = TimeSpan(since, since + size)
    for bound in (since, since + size):  # record times are whole ms: each is inside by ms if it is inside by the span
        at_ms = (bound - EPOCH) // timedelta(milliseconds=1) + near
        moment = EPOCH + timedelta(milliseconds=at_ms)
        assert (span.since_ms <= at_ms < span.until_ms) == (span.since <= moment < span.until)


def test_every_millisecond_is_exact() -> None:
    for at in range(1_793_491_200_000, 1_793_491_201_000):
        start = EPOCH + timedelta(milliseconds=at)
        assert TimeSpan(start, start + DAY).since_ms == at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", "2026-11-01T00:00:00Z"),
        ("2026-11-01T06:00", "2026-11-01T06:00:00Z"),
        ("2026-11-01T06:00Z", "2026-11-01T06:00:00Z"),
        ("2026-11-01T06:00+05:30", "2026-11-01T00:30:00Z"),
        ("2026-03-29T02:30", "2026-03-29T02:30:00Z"),  # an hour that Berlin does not have
        ("2026-11-01T06:00:00.123", "2026-11-01T06:00:00.123000Z"),
    ],
)
def test_times_are_utc(text: str, expected: str) -> None:
    assert format_time(parse_time(text)) == expected
    assert parse_time(expected) == parse_time(text)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-11-31", "1793491200", "0001-01-01T00:00+05:00"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a date or time like") as caught:
        parse_time(text)
    assert repr(text) in str(caught.value)


def test_reversed_empty_and_local_spans_are_refused() -> None:
    with pytest.raises(ConfigError, match="is not before"):
        TimeSpan.parse("2026-11-03", "2026-11-01")
    with pytest.raises(ConfigError, match="is not before"):
        TimeSpan.parse("2026-11-01", "2026-11-01")
    naive, local = datetime(2026, 11, 1), datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=1)))
    for start in (naive, local):
        with pytest.raises(ConfigError, match="UTC"):
            TimeSpan(start, start + DAY)


@given(times, st.timedeltas(timedelta(seconds=1), timedelta(days=4)), st.sampled_from([DAY, timedelta(hours=1)]))
def test_chunks_join_to_the_span(since: datetime, size: timedelta, step: timedelta) -> None:
    span = TimeSpan(since, since + size)
    chunks = list(span.chunks(step))
    assert (chunks[0].since, chunks[-1].until) == (span.since, span.until)
    assert all(left.until == right.since for left, right in pairwise(chunks))
    assert all(chunk.until - chunk.since == step for chunk in chunks[:-1])


def test_days_and_hours() -> None:
    span = TimeSpan.parse("2026-03-28T12:00", "2026-03-30")
    assert [str(day) for day in span.days()] == [
        "2026-03-28T12:00:00Z/2026-03-29T12:00:00Z",
        "2026-03-29T12:00:00Z/2026-03-30T00:00:00Z",
    ]
    assert len(list(span.hours())) == 36


def test_a_step_of_nothing_is_refused() -> None:
    for step in (timedelta(0), -DAY):
        with pytest.raises(ConfigError, match="is not before"):
            list(TimeSpan.parse("2026-11-01", "2026-11-02").chunks(step))


def test_the_end_of_time() -> None:
    assert len(list(TimeSpan.parse("9999-12-30", "9999-12-31T12:00").days())) == 2
