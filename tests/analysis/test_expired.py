"""Results are made of all the events that they need, or not at all."""

from datetime import date, timedelta
from typing import Any

import pytest

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.expired import check_unexpired, check_unneeded
from pipeline_lib.errors import ConfigError

TODAY = date(2026, 11, 20)


def declared(since: str, zone: str = "UTC", **settings: Any) -> Analysis:
    variations = {"a": {"name": "a"}, "b": {"name": "b"}}
    experiment = {"id": "e", "since": since, "control": "a", "variations": variations, "metrics": ["buys"]}
    return Analysis.model_validate(
        {"topic": "t", "time_zone": zone, "look_back_days": 30, "late_days": 10, "experiments": [experiment],
         "metrics": {"buys": {"kind": "conversion", "event": "purchase"}}} | settings
    )  # fmt: skip


OLD, YOUNG = declared("2026-01-01"), declared("2026-11-15")  # young ones read 7 days from before, and a day's sessions


def test_a_day_is_analysed_only_if_no_event_that_it_needs_has_expired() -> None:
    check_unexpired(OLD, TODAY, None)
    check_unexpired(OLD, TODAY, TODAY - timedelta(days=30))
    with pytest.raises(ConfigError, match=r"made of the events from 2026-10-21 on, .* before 2026-10-22"):
        check_unexpired(OLD, TODAY, TODAY - timedelta(days=29))
    check_unexpired(YOUNG, TODAY, date(2026, 11, 8))
    with pytest.raises(ConfigError, match="2026-11-08"):
        check_unexpired(YOUNG, TODAY, date(2026, 11, 9))


def test_what_an_analysis_reads_does_not_expire() -> None:
    analyses = {"old": OLD, "young": YOUNG}
    check_unneeded("t", 40, analyses, TODAY)
    with pytest.raises(ConfigError, match=r"keep_days = 39, but analysis old .* raise keep_days to 40"):
        check_unneeded("t", 39, analyses, TODAY)
    check_unneeded("another", 1, analyses, TODAY)
    with pytest.raises(ConfigError, match="raise keep_days to 12"):
        check_unneeded("t", 10, {"young": declared("2026-11-15", late_days=2)}, TODAY)
