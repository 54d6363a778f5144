"""Loads into a real Druid; the oracle is what queries find before and after."""

import pytest
from druid_cases import FIRST, Case, events, outcomes, span

from pipeline_lib.druid.query import ask
from pipeline_lib.druid.rollback import execute_rollback, plan_rollback
from pipeline_lib.druid.run import EmptySource
from pipeline_lib.errors import ConfigError


def test_a_day_is_loaded_proved_and_replaced_and_taken_back(case: Case) -> None:
    case.write(0, 100)
    assert outcomes(case.load()) == ["loaded"]
    assert case.rows() == 100
    first = case.revenue()
    assert outcomes(case.load()) == ["already"]

    case.write(0, 50, revenue=10)
    assert outcomes(case.load()) == ["loaded"]
    assert case.rows() == 150
    assert case.revenue() != first

    plan = plan_rollback(case.config, case.source, span(0, 1))
    execute_rollback(case.config, case.source, plan)
    assert (case.rows(), case.revenue()) == (100, first)
    assert case.load(changed=True) == []  # what was rolled back does not come again by itself
    case.write(0, 5)
    assert outcomes(case.load(changed=True)) == ["loaded"]
    assert case.rows() == 155


def test_questions_are_answered_and_uniques_are_exact_below_the_sketchs_size(case: Case) -> None:
    case.write(0, 100)
    case.load()

    def asked(by: str | None, *where: str) -> list[dict[str, object]]:
        return ask(case.druid, case.source, "visitors", by, list(where), "all", 10, span(0, 1))

    ((row,), table) = (asked(None), events(FIRST, 100).to_pylist())
    visitors = len({each["visitor"] for each in table})
    assert (row["count"], row["visitors"], row["visitors_low"], row["visitors_high"]) == (100, *[visitors] * 3)
    found = {each["experiment"]: each["visitors"] for each in asked("experiment", "holdback=true")}
    chosen = [each for each in table if each["holdback"]]
    assert found == {
        name: len({each["visitor"] for each in chosen if each["experiment"] == name})
        for name in {each["experiment"] for each in chosen}
    }
    with pytest.raises(ConfigError, match="no such dimension"):
        asked("colour")


def test_only_changed_days_are_loaded_and_vanished_ones_emptied(case: Case) -> None:
    for day in range(4):
        case.write(day, 10 + day)
    assert outcomes(case.load(0, 4)) == ["loaded"] * 4
    case.write(2, 1)
    assert [chunk.chunk for chunk in case.load(0, 30, changed=True)] == ["2026-11-03T00"]
    case.replace(1, 0)
    assert outcomes(case.load(0, 4)) == ["already", "emptied", "already", "already"]
    assert [case.rows(day, day + 1) for day in range(4)] == [10, 0, 13, 13]


def test_an_empty_span_is_refused_unless_it_is_meant(case: Case) -> None:
    case.write(0, 10)
    case.write(1, 10)
    case.load(0, 2)
    case.replace(0, 0)
    with pytest.raises(EmptySource, match="--allow-empty"):
        case.load()
    assert case.rows() == 10
    assert outcomes(case.load(allow_empty=True)) == ["emptied"]
    assert (case.rows(), case.rows(1, 2)) == (0, 10)


def test_a_span_that_cuts_a_day_is_refused(case: Case) -> None:
    case.write(0)
    from pipeline_lib.druid.run import ingest
    from pipeline_lib.timespan import TimeSpan

    with pytest.raises(ConfigError, match="inside a day"):
        ingest(case.config, case.source, TimeSpan.parse("2026-11-01", "2026-11-01T12:00"), False, False)
