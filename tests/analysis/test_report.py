"""The pages: what they say, that they stand alone, and that nothing of the data can break out of them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from pipeline_lib.analysis.declaration import Analysis, Funnel
from pipeline_lib.analysis.inference.compare import Settings, compare
from pipeline_lib.analysis.publish import published
from pipeline_lib.report.pages import _retention, pages

DAYS = [date(2026, 11, day) for day in (1, 2, 3)]


def declared() -> Analysis:
    return Analysis.model_validate({
        "topic": "t",
        "metrics": {"buys": {"kind": "conversion", "event": "purchase"}},
        "experiments": [
            {"id": "e/1", "name": "<b>big</b> & small", "since": "2026-11-01", "control": "a", "metrics": ["buys"],
             "variations": {"a": {"name": "A"}, "b": {"name": "<script>"}}},
            {"id": "quiet", "since": "2026-11-01", "control": "a", "metrics": ["buys"],
             "variations": {"a": {"name": "A"}, "b": {"name": "B"}}},
        ],
    })  # fmt: skip


def rows(alarm: bool = False) -> list[dict[str, Any]]:
    from tea_tasting.aggr import Aggregates

    found: list[dict[str, Any]] = []
    for n, day in enumerate(DAYS, 1):
        count = 1000 * n
        a, b = (Aggregates(count, {"value": rate}, {"value": rate * (1 - rate)}) for rate in (0.10, 0.13))
        for variation, arm in (("a", a), ("b", b)):
            done = vars(compare(a, arm, Settings())) | ({"reason": "control"} if variation == "a" else {})
            found.append({"date": day, "part": "result", "experiment_id": "e/1", "metric": "buys", "segment": "all",
                          "variation_id": variation, "scope": "to_date", "visitors": count, "total": 100.0,
                          "q_value": done["p_value"], **done})  # fmt: skip
            found.append({"date": day, "part": "sample", "experiment_id": "e/1", "variation_id": variation,
                          "visitors": count, "expected": float(count), "p_value": 1.0, "always_valid_p": 1.0,
                          "alarm": alarm, "reason": "off by 9 %" if alarm else ""})  # fmt: skip
        found.append({"date": day, "part": "quality", "experiment_id": "", "reason": "bot", "count": 7})
    return found


def hours() -> list[dict[str, Any]]:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    return [
        {"time": start + timedelta(hours=n), "topic": "t", "events": 100 + n, "visitors": 50, "error_share": 0.01,
         "quarantined_share": 0.0, "bot_share": 0.02, "duplicate_share": 0.0}
        for n in range(48)
    ]  # fmt: skip


def test_pages_say_what_was_found() -> None:
    files = pages(rows(), hours(), "experiments", declared())
    assert set(files) == {"index.html", "ex2f1.html"}
    page = files["ex2f1.html"]
    assert page.count("<svg") == 2
    assert "+30.0%" in page
    assert "Visitors divide as declared" in page
    assert "<td>bot</td><td>21</td>" in page
    assert "no result yet" in files["index.html"]  # of the experiment that has none


def test_a_funnel_is_drawn_where_there_are_rows_of_it() -> None:
    analysis = declared().model_copy(deep=True)
    analysis.funnels["path"] = Funnel.model_validate({"steps": [{"event": "view"}, {"event": "purchase"}]})
    analysis.experiments[0].funnels.append("path")
    assert pages(rows(), hours(), "x", analysis)["ex2f1.html"].count("<svg") == 2
    steps = [
        {"date": DAYS[-1], "part": "funnel", "experiment_id": "e/1", "metric": "path", "segment": "all",
         "variation_id": variation, "scope": "to_date", "step": step, "visitors": 1000, "count": count}
        for variation in "ab" for step, count in ((2, 123), (1, 456))
    ]  # fmt: skip
    page = pages([*rows(), *steps], hours(), "x", analysis)["ex2f1.html"]
    assert page.count("<svg") == 3
    assert page.index("45.6%") < page.index("12.3%")


def test_the_index_shows_traffic_and_sessions() -> None:
    figures = {"visitors": 900.0, "sessions": 1200.0, "median_seconds": 3725.0, "p95_seconds": 59.6, "mean_events": 3.5}
    sessions = [
        {"date": day, "part": "session", "experiment_id": "", "metric": name, "segment": "all", "scope": "day",
         "total": value}
        for day in DAYS for name, value in figures.items()
    ]  # fmt: skip
    index = pages([*rows(), *sessions], hours(), "x", declared())["index.html"]
    assert index.count("<svg") == 1
    assert "<td>1:02:05</td><td>1:00</td>\n<td>3.5</td><td>–</td>" in index
    assert index.index("2026-11-03</td><td>900") < index.index("2026-11-01</td><td>900")  # the newest day first
    empty = pages(rows(), [], "x", declared())["index.html"]
    assert "<svg" not in empty
    assert "Sessions" not in empty


def test_retention_is_of_all_cohorts_that_were_followed_so_long() -> None:
    def back(cohort: int, day: int, visitors: int, count: int) -> dict[str, Any]:
        return {"date": DAYS[day], "part": "retention", "experiment_id": "e/1", "segment": "all", "variation_id": "a",
                "scope": "day", "cohort": DAYS[cohort], "visitors": visitors, "count": count}  # fmt: skip

    found = [back(0, 0, 100, 50), back(0, 1, 100, 30), back(1, 1, 300, 150), back(1, 2, 300, 10)]
    analysis = declared()
    experiment = analysis.experiments[0]
    assert _retention(experiment, found) == {"A": [(0, 0.5), (1, 0.1)], "<script>": []}
    assert pages([*rows(), *found], hours(), "x", analysis)["ex2f1.html"].count("<svg") == 3


def test_an_alarm_stands_above_the_results() -> None:
    page = pages(rows(alarm=True), hours(), "experiments", declared())["ex2f1.html"]
    assert page.index("Sample ratio mismatch: off by 9 %") < page.index("<h2>buys</h2>")


def test_pages_stand_alone_and_escape_names() -> None:
    for page in pages(rows(), hours(), "experiments", declared()).values():
        assert "<script" not in page
        assert "<b>big" not in page
        assert "src=" not in page
        assert "@import" not in page


def test_the_same_rows_give_the_same_bytes() -> None:
    assert pages(rows(), hours(), "x", declared()) == pages(list(reversed(rows())), hours(), "x", declared())


def test_results_for_the_results_page_end_with_the_newest_day() -> None:
    found = published(rows(), declared())
    assert [result.until_ms for result in found] == sorted(result.until_ms for result in found)
    last = found[-1]
    assert last.until_ms == 1_793_750_400_000  # the end of 3 November, UTC
    assert last.key == b"e/1\0buys\0all\0b"
    assert last.values["name"] == "<script>"
    assert last.values["visitors"] == 3000
