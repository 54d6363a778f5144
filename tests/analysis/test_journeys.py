"""Sessions, funnels, retention and traffic: each rule by hand, and each figure against a plain loop over the events."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest
from analysis_events import batch, landed

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.run import days_of, prepared, rows_of
from pipeline_lib.analysis.sessions import sessions
from pipeline_lib.analysis.traffic import by_hour, top_experiments, traffic
from pipeline_lib.io.spark import Frame, Session

DAY = date(2026, 11, 1)
DAYS = days_of(DAY, date(2026, 11, 5))
MIDNIGHT = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
MINUTE, HOUR = 60_000, 3_600_000
STEPS = ("view", "cart", "purchase")


def declared(**changes: Any) -> Analysis:
    experiment = {
        "id": "e", "name": "buttons", "since": "2026-11-01", "control": "a", "funnels": ["checkout"],
        "variations": {"a": {"name": "A"}, "b": {"name": "B"}}, "metrics": ["sessions", "buying", "buying_share"],
    }  # fmt: skip
    metrics = {
        "sessions": {"kind": "sessions"},
        "buying": {"kind": "sessions", "event": "purchase"},
        "buying_share": {"kind": "ratio", "numerator": "buying", "denominator": "sessions"},
    }
    funnels = {"checkout": {"steps": [{"event": step} for step in STEPS], "within_hours": 2}}
    values = {"topic": "t", "metrics": metrics, "experiments": [experiment], "funnels": funnels}
    return Analysis.model_validate(values | changes)


def did(visitor: str, *events: tuple[int, str], variation: str = "a") -> bytes:
    """A visitor's events (ms after the first midnight, name); `exposed` is the decision."""
    found = []
    for n, (at, name) in enumerate(events):
        event: dict[str, Any] = {"timestamp": MIDNIGHT + at, "uuid": f"{visitor}-{n}"}
        event |= {"experiment": "e", "variation": variation} if name == "exposed" else {"key": name}
        found.append(event)
    return batch(visitor, *found)


def rows(events: Frame, analysis: Analysis, days: Sequence[date] = DAYS) -> list[dict[str, Any]]:
    with prepared(events, days, analysis) as frames:
        return rows_of(frames, days, analysis)


def reached(found: list[dict[str, Any]], day: date = DAY) -> dict[str, list[int]]:
    """Of each variation the visitors, and those who came to each step."""
    counts: dict[str, list[int]] = {}
    for row in found:
        if row["part"] == "funnel" and row["date"] == day:
            counts.setdefault(row["variation_id"], [row["visitors"]]).append(row["count"])
    return counts


def test_sessions_end_with_a_pause_and_after_a_day(spark: Session) -> None:
    restless = [(n * 29 * MINUTE, "view") for n in range(103)]  # no pause, and 49 hours of it
    events = landed(spark, [
        did("paused", (0, "view"), (30 * MINUTE, "view"), (60 * MINUTE + 1, "view")),
        did("late", (23 * HOUR + 50 * MINUTE, "view"), (24 * HOUR + 10 * MINUTE, "view")),  # one session over midnight
        did("restless", *restless),
    ])  # fmt: skip
    with prepared(events, DAYS, declared()) as frames:
        found = [row.asDict() for row in sessions(frames.events, DAYS, declared()).collect()]
        alone = [row.asDict() for row in sessions(frames.events, DAYS[:1], declared()).collect()]
    starts = defaultdict(list)
    for row in sorted(found, key=lambda row: (row["started_at"], row["date"])):
        start = int(row["started_at"].replace(tzinfo=UTC).timestamp() * 1000) - MIDNIGHT
        starts[row["visitor_id"]].append((start, row["date"].day, row["starts"], row["events"]))
    assert starts["paused"] == [(0, 1, True, 2), (60 * MINUTE + 1, 1, True, 1)]
    assert starts["late"] == [(23 * HOUR + 50 * MINUTE, 1, True, 1), (23 * HOUR + 50 * MINUTE, 2, False, 1)]
    cuts = [next(at for at, _ in restless if at >= hours * HOUR) for hours in (0, 24, 48)]
    assert [start for start, _, begins, _ in starts["restless"] if begins] == cuts
    assert sum(row["events"] for row in found) == 3 + 2 + 103
    assert sorted(map(str, alone)) == sorted(str(row) for row in found if row["date"] == DAY)


def test_a_session_over_midnight_counts_once_and_from_the_exposure_on(spark: Session) -> None:
    """Sessions of visitors 0: one before the exposure, one with it that goes over midnight and buys twice, one after."""
    values = []
    for variation in "ab":
        for n in range(2):
            events = [(HOUR, "purchase"), (23 * HOUR + 50 * MINUTE, "exposed"), (23 * HOUR + 55 * MINUTE, "purchase"),
                      (24 * HOUR + 5 * MINUTE, "purchase"), (30 * HOUR, "view")]  # fmt: skip
            values.append(did(f"{variation}{n}", *(events if n == 0 else events[1:2]), variation=variation))
    found = {(row["metric"], row["date"], row["scope"]): row for row in rows(landed(spark, values), declared())
             if row["part"] == "result" and row["variation_id"] == "b"}  # fmt: skip
    second = date(2026, 11, 2)
    assert [found["sessions", day, "to_date"]["total"] for day in (DAY, second)] == [2, 3]
    assert [found["buying", day, "to_date"]["total"] for day in (DAY, second)] == [1, 1]
    assert found["sessions", second, "day"]["total"] == 1
    assert found["buying_share", second, "to_date"]["treatment"] == pytest.approx(1 / 3)


def test_funnel_rules(spark: Session) -> None:
    through = [(MINUTE, "view"), (2 * MINUTE, "cart"), (3 * MINUTE, "purchase")]
    events = landed(spark, [
        did("through", (0, "exposed"), *through),
        did("backwards", (0, "exposed"), (1, "purchase"), (2, "cart"), (3, "view")),
        did("before", (0, "view"), (MINUTE, "exposed"), (2 * MINUTE, "cart")),  # its view is before the exposure
        did("at_the_end", (0, "exposed"), (1, "view"), (HOUR, "cart"), (2 * HOUR + 1, "purchase")),
        did("too_slow", (0, "exposed"), (1, "view"), (HOUR, "cart"), (2 * HOUR + 2, "purchase")),
        did("again", (0, "exposed"), (1, "view"), (HOUR, "view"), (HOUR + 1, "cart"), (3 * HOUR, "purchase")),
        did("same_ms", (0, "exposed"), (1, "purchase"), (1, "cart"), (1, "view")),
        did("later", (0, "exposed"), *((at + 24 * HOUR, name) for at, name in through)),
        did("other", (0, "exposed"), *through[:1], variation="b"),
    ])  # fmt: skip
    found = rows(events, declared())
    # views: all of a but `before` and `later`; carts: through, at_the_end, too_slow, again, same_ms; then not too_slow
    assert reached(found) == {"a": [8, 6, 5, 4], "b": [1, 1, 0, 0]}
    assert reached(found, date(2026, 11, 2))["a"] == [8, 7, 6, 5]


def furthest(events: list[tuple[int, str]], exposed: int, window: int) -> int:
    """The most steps of any chain, by trying every beginning."""
    ordered = sorted((at, STEPS.index(name)) for at, name in events if at >= exposed and name in STEPS)
    best = 0
    for at, step in ordered:
        if step == 0:
            end = at + window
            last, n = at, 1
            for later, wanted in ordered:
                if n < len(STEPS) and wanted == n and last <= later <= end:
                    last, n = later, n + 1
            best = max(best, n)
    return best


def test_funnel_and_retention_are_those_of_a_loop(spark: Session) -> None:
    random = Random(5)
    people = {}
    for n in range(150):
        exposed = random.randrange(48 * HOUR)
        at = sorted(random.sample(range(96 * HOUR), random.randrange(12)))
        events = [(each, random.choice(STEPS)) for each in at]
        burst = [(exposed + random.randrange(4 * HOUR), random.choice(STEPS)) for _ in range(random.randrange(8))]
        people[f"v{n}"] = ("ab"[n % 2], exposed, sorted([*events, *burst]))
    values = [did(name, *sorted([(exposed, "exposed"), *events]), variation=variation)
              for name, (variation, exposed, events) in people.items()]  # fmt: skip
    found = rows(landed(spark, values), declared())
    last = reached(found, DAYS[-1])
    back: Counter[tuple[str, date, date]] = Counter()
    cohorts: Counter[tuple[str, date]] = Counter()
    for variation, exposed, events in people.values():
        cohort = DAY + timedelta(exposed // (24 * HOUR))
        cohorts[variation, cohort] += 1
        active = {DAY + timedelta(at // (24 * HOUR)) for at, _ in events if at >= exposed} | {cohort}
        back.update((variation, cohort, day) for day in active if day in DAYS)
    for variation in "ab":
        got = [furthest(events, exposed, 2 * HOUR) for v, exposed, events in people.values() if v == variation]
        assert last[variation] == [len(got), *(sum(each >= n for each in got) for n in (1, 2, 3))]
    retained = {(row["variation_id"], row["cohort"], row["date"]): row for row in found if row["part"] == "retention"}
    assert len(retained) == 2 * (4 + 3)  # two variations; two cohorts, from their own day until the last
    for (variation, cohort, day), row in retained.items():
        assert (row["visitors"], row["count"]) == (cohorts[variation, cohort], back[variation, cohort, day])


def test_traffic_counts_every_event_once(spark: Session) -> None:
    values = [
        did("v1", (0, "exposed"), (MINUTE, "view"), (HOUR, "view")),
        did("v2", (1, "exposed"), variation="b"),
        batch("v2", {"timestamp": MIDNIGHT + 2, "uuid": "r", "key": "purchase", "revenue": 70}),
        batch("v2", {"timestamp": MIDNIGHT + 9, "uuid": "r", "key": "purchase", "revenue": 70}),  # sent again
        did("v3", (9600 * HOUR, "view")),  # of next year; its record came at 1 o'clock
        batch("v4", {"timestamp": MIDNIGHT, "uuid": "x", "experiment": "not declared", "variation": "1"}),
        batch("v5", {"timestamp": MIDNIGHT, "uuid": "h", "experiment": "e", "variation": "a", "holdback": True}),
    ]
    events = landed(spark, values, MIDNIGHT + HOUR)
    refused = spark.createDataFrame(
        [(datetime(2026, 11, 1, 5, tzinfo=UTC), "no_json"), (datetime(2026, 11, 9, tzinfo=UTC), "no_json")],
        "_timestamp TIMESTAMP, reason STRING",
    )
    with prepared(events, DAYS[:1], declared()) as frames:
        made = traffic(frames.events, refused, DAYS[:1], declared())
        found = [row.asDict() for row in made.collect()]
        hours = {row["time"].hour: row.asDict() for row in by_hour(made).collect()}
        top = [tuple(row) for row in top_experiments(made, 5).collect()]
    assert sum(row["events"] for row in found) == 10  # what happened on the first day, and one quarantined record
    assert {(row["quality"], row["reason"]) for row in found} == {
        ("ok", None), ("duplicate", "duplicate"), ("error", "time_in_the_future"), ("holdback", None), ("quarantined", "no_json"),
    }  # fmt: skip
    assert sum(row["revenue"] for row in found) == 70
    assert top == [("e", "buttons", 2, 2), ("not declared", "not declared", 1, 1)]
    assert (hours[0]["events"], hours[0]["visitors"], hours[0]["duplicate_share"]) == (7, 3, pytest.approx(1 / 7))
    assert (hours[1]["events"], hours[1]["error_share"]) == (2, 0.5)
    assert (hours[5]["events"], hours[5]["quarantined_share"], hours[5]["visitors"]) == (1, 1, 0)
    assert {row["variation"] for row in found if row["experiment_id"] == "e"} == {"A", "B"}


def test_a_funnel_or_session_metric_that_does_not_fit_is_refused() -> None:
    experiment = declared().experiments[0].model_dump() | {"funnels": ["gone"]}
    with pytest.raises(ValueError, match=r"funnels \['gone'\] are not declared"):
        declared(experiments=[experiment])
    with pytest.raises(ValueError, match="and no other, need `value`"):
        declared(metrics={"sessions": {"kind": "sessions", "value": "revenue"}})
    with pytest.raises(ValueError, match="at least 2 items"):
        declared(funnels={"checkout": {"steps": [{"event": "view"}]}})
