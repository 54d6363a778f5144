"""Results are never made of what `lode expire` has left of the events that they need: neither now nor next time. Pure."""

from collections.abc import Mapping
from datetime import date, timedelta

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.errors import ConfigError


def check_unexpired(analysis: Analysis, day: date, expired_before: date | None) -> None:
    """Raises ConfigError where events of before a day have been removed, and an analysis of `day` needs some of them."""
    needed = analysis.first_day_needed(day)
    if expired_before and needed < expired_before:
        raise ConfigError(
            f"the results of {day} are made of the events from {needed} on, and `lode expire` has removed those before"
            f" {expired_before}: what is known of the day stays as it is; name later days, or give the analysis a"
            f" look_back_days below {analysis.look_back_days}"
        )


def check_unneeded(topic: str, keep_days: int, analyses: Mapping[str, Analysis], today: date) -> None:
    """Raises ConfigError where an analysis of the topic reads days that are older than `keep_days`."""
    for name, analysis in analyses.items():
        oldest = today - timedelta(days=analysis.late_days)  # that `--changed` recomputes
        needed = (today - analysis.first_day_needed(oldest)).days
        if analysis.topic == topic and needed > keep_days:
            raise ConfigError(
                f"topic {topic} has keep_days = {keep_days}, but analysis {name} reads the events of the last {needed} days"
                f" (late_days = {analysis.late_days}, and look_back_days = {analysis.look_back_days} before that): nothing"
                f" was removed; raise keep_days to {needed}, or lower those"
            )
