"""What has to hold before a load counts as one."""

from collections.abc import Iterable, Mapping
from typing import Any

_LOST = ("unparseable", "thrownAway", "processedWithError")


def report_problems(report: Mapping[str, Any] | None, expected: int) -> list[str]:
    """What a task's own report says against the load. Druid's SUCCESS says nothing about rows.

    Args:
        report: the task's reports; None where Druid has none, which proves nothing.
        expected: rows of the files, by the table's log.
    """
    if report is None:
        return ["Druid has no report of the task"]
    stats = report.get("ingestionStatsAndErrors", {}).get("payload", {}).get("rowStats", {})
    counts = stats.get("totals", stats).get("buildSegments", {})
    problems = []
    if (processed := counts.get("processed", 0)) != expected:
        problems.append(f"it processed {processed:,} rows of {expected:,}")
    problems += [f"{counts[name]:,} rows were {name}" for name in _LOST if counts.get(name)]
    return problems


def own_version(created: str, used: Iterable[str], unused: Iterable[str]) -> str | None:
    """The version that a task which Druid created at that time has published, where that is certain: the only one since.

    Versions are the times at which tasks got their locks, as text that sorts.
    """
    counting = {version for version in used if version >= created}
    since = counting | {version for version in unused if version >= created}
    return next(iter(since)) if len(since) == 1 and since == counting else None
