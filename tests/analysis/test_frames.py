"""From landed events to results: the counting rules, bad input, and the generator's truth."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from analysis_events import batch, landed
from tea_tasting.aggr import Aggregates

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.inference.compare import Settings, compare
from pipeline_lib.analysis.inference.quantiles import Quantile, compare_quantiles, ranks
from pipeline_lib.analysis.run import analysed_rows, days_of
from pipeline_lib.generate.settings import TrafficSettings
from pipeline_lib.generate.traffic import generate
from pipeline_lib.generate.truth import Truth
from pipeline_lib.io.spark import Frame, Session
from pipeline_lib.io.spark import functions as F

DAY = date(2026, 11, 1)
MIDNIGHT = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


def declared(**changes: Any) -> Analysis:
    experiment = {
        "id": "e", "since": "2026-11-01", "control": "a", "variations": {"a": {"name": "A"}, "b": {"name": "B"}},
        "metrics": ["buys", "revenue", "per_buy"], **changes.pop("experiment", {}),
    }  # fmt: skip
    metrics = {
        "buys": {"kind": "conversion", "event": "purchase"},
        "orders": {"kind": "count", "event": "purchase"},
        "revenue": {"kind": "sum", "event": "purchase", "value": "revenue"},
        "per_buy": {"kind": "ratio", "numerator": "revenue", "denominator": "orders"},
    } | changes.pop("metrics", {})
    return Analysis.model_validate({"topic": "t", "metrics": metrics, "experiments": [experiment], **changes})


def exposure(at: int, uuid: str, variation: str = "a", experiment: str = "e", **more: Any) -> dict[str, Any]:
    return {"timestamp": at, "uuid": uuid, "experiment": experiment, "variation": variation, **more}


def purchase(at: int, uuid: str, **more: Any) -> dict[str, Any]:
    return {"timestamp": at, "uuid": uuid, "key": "purchase", **more}


def results(events: Frame, analysis: Analysis, *days: date) -> dict[tuple[str, str], dict[str, Any]]:
    rows = analysed_rows(events, list(days or [DAY]), analysis)
    last = (days or [DAY])[-1]
    return {(row["metric"], row["variation_id"]): row for row in rows
            if row["part"] == "result" and row["date"] == last and row["segment"] == "all" and row["scope"] == "to_date"}  # fmt: skip


def quality(events: Frame, analysis: Analysis, day: date = DAY) -> dict[str, int]:
    rows = [row for row in analysed_rows(events, [day], analysis) if row["part"] == "quality"]
    return {row["reason"]: row["count"] for row in rows}


def crowd(**purchases: int) -> list[bytes]:
    """Visitors of both variations; `a=3`: the first three of variation a purchase."""
    found = []
    for variation in "ab":
        for n in range(20):
            name = f"{variation}{n}"
            events = [exposure(MIDNIGHT + HOUR, f"d-{name}", variation)]
            if n < purchases.get(variation, 2):
                events.append(purchase(MIDNIGHT + 2 * HOUR, f"p-{name}", revenue=100))
            found.append(batch(name, *events))
    return found


def test_counting_rules(spark: Session) -> None:
    values = [
        *crowd(a=1, b=1),
        batch("before", purchase(MIDNIGHT, "x1", revenue=999), exposure(MIDNIGHT + 1, "x2", "b")),  # not its effect
        batch("retry", exposure(MIDNIGHT, "y1", "b"), purchase(MIDNIGHT + 5, "y2", revenue=70)),
        batch("retry", purchase(MIDNIGHT + 9, "y2", revenue=70)),  # the same uuid, sent again with another time
        batch("tagged", exposure(MIDNIGHT, "z1", "b"), purchase(MIDNIGHT + 5, "z2", revenue=30, tags={"revenue": 30})),
        batch("tag_only", exposure(MIDNIGHT, "w1", "b"), purchase(MIDNIGHT + 5, "w2", tags={"revenue": 5})),
        batch("held", exposure(MIDNIGHT, "h1", "b", holdback=True), purchase(MIDNIGHT + 5, "h2", revenue=10_000)),
    ]
    found = results(landed(spark, values), declared())
    assert found["revenue", "b"]["visitors"] == 24
    assert found["revenue", "b"]["total"] == 100 + 70 + 30 + 5
    assert found["buys", "b"]["total"] == 4
    assert found["per_buy", "b"]["treatment"] == pytest.approx(205 / 4)


def test_visitors_in_several_variations(spark: Session) -> None:
    both = batch("both", exposure(MIDNIGHT, "s1", "b"), exposure(MIDNIGHT + 1, "s2", "a"), purchase(MIDNIGHT + 2, "s3"))
    events = landed(spark, [*crowd(), both])
    assert quality(events, declared())["visitor_in_several_variations"] == 1
    visitors = {}
    for name, experiment in (
        ("first", {}),
        ("last", {"exposure": "last"}),
        ("exclude", {"several_variations": "exclude"}),
    ):
        found = results(events, declared(experiment=experiment))
        visitors[name] = (found["buys", "a"]["visitors"], found["buys", "b"]["visitors"])
    assert visitors == {"first": (20, 21), "last": (21, 20), "exclude": (20, 20)}


def test_windows_and_time_zones(spark: Session) -> None:
    late = batch("late", exposure(MIDNIGHT, "t1", "b"), purchase(MIDNIGHT + 24 * HOUR, "t2"))
    later = batch("later", exposure(MIDNIGHT, "u1", "b"), purchase(MIDNIGHT + 24 * HOUR + 1, "u2"))
    events = landed(spark, [*crowd(b=0), late, later])
    analysis = declared(metrics={"buys": {"kind": "conversion", "event": "purchase", "window_hours": 24}})
    assert results(events, analysis, *days_of(DAY, date(2026, 11, 3)))["buys", "b"]["total"] == 1
    assert results(events, analysis)["buys", "b"]["total"] == 0  # not yet, by the end of the first day
    tokyo = declared(time_zone="Asia/Tokyo")  # its 2 November begins at 15:00 UTC
    evening = landed(spark, [*crowd(), batch("x", exposure(MIDNIGHT + 16 * HOUR, "v1", "b"))])
    assert results(evening, tokyo)["buys", "b"]["visitors"] == 20
    assert results(evening, tokyo, DAY, date(2026, 11, 2))["buys", "b"]["visitors"] == 21


def test_winsorising_has_one_threshold_for_all(spark: Session) -> None:
    whale = batch("whale", exposure(MIDNIGHT, "m1", "b"), purchase(MIDNIGHT + 1, "m2", revenue=1_000_000))
    metrics = {"revenue": {"kind": "sum", "event": "purchase", "value": "revenue", "winsorise": 0.95}}
    found = results(landed(spark, [*crowd(a=10, b=10), whale]), declared(metrics=metrics))
    assert found["revenue", "b"]["total"] == 11 * 100
    assert found["revenue", "a"]["total"] == 10 * 100


def test_bad_input_is_counted_and_never_a_wrong_number(spark: Session) -> None:
    values = [
        *crowd(),
        batch("future", exposure(MIDNIGHT, "f0", "b"), purchase(MIDNIGHT + 400 * 24 * HOUR, "f1", revenue=5)),
        batch("past", exposure(MIDNIGHT, "g0", "b"), purchase(MIDNIGHT + 1, "g1", revenue=5)),
        batch("nan", exposure(MIDNIGHT, "n0", "b"), purchase(MIDNIGHT + 1, "n1", tags={"revenue": "NaN"})),
        batch("huge", exposure(MIDNIGHT, "k0", "b"), purchase(MIDNIGHT + 1, "k1", tags={"revenue": str(2**63)})),
        batch("drift", exposure(MIDNIGHT, "r0", "b"), purchase(MIDNIGHT + 1, "r1", tags={"revenue": "a lot"})),
        batch("other", exposure(MIDNIGHT, "o1", "b", experiment="nobody's"), purchase(MIDNIGHT + 1, "o2", revenue=5)),
        batch("odd", exposure(MIDNIGHT, "o3", "c")),
        batch("bot", exposure(MIDNIGHT, "b1", "b"), agent="Googlebot/2.1",
              attributes=({"entity_id": "$opt_bot_filtering", "key": "$opt_bot_filtering", "value": True},)),
        batch("", exposure(MIDNIGHT, "e1", "b")),  # refused by the codec: it has no visitor
    ]  # fmt: skip
    events = landed(spark, values, MIDNIGHT + 3 * HOUR)
    before_2000 = F.when(F.col("uuid") == "g1", F.lit(datetime(1970, 1, 1, tzinfo=UTC))).otherwise(F.col("event_time"))
    events = events.withColumn(
        "event_time", before_2000
    )  # which the batch codec itself refuses, and JSON topics do not
    found = results(events, declared())
    assert found["revenue", "b"]["total"] == 200
    assert found["revenue", "b"]["visitors"] == 25
    assert found["buys", "b"]["total"] == 5  # a purchase without a sound revenue is one nevertheless
    counts = quality(events, declared())
    expected = {"time_in_the_future": 1, "time_before_2000": 1, "not_a_number": 3, "unknown_experiment": 1, "bot": 1,
                "unknown_variation_or_outside_the_span": 1}  # fmt: skip
    assert {name: counts.get(name) for name in expected} == expected


def test_a_day_with_one_variation_only_and_an_empty_one(spark: Session) -> None:
    analysis = declared()
    lonely = landed(spark, [batch("v", exposure(MIDNIGHT, "v1", "a"))])
    found = results(lonely, analysis)
    assert found["buys", "b"]["reason"] == "no visitor of variation b"
    assert found["buys", "b"]["difference"] is None
    assert analysed_rows(lonely.limit(0), [DAY], analysis) == []


def test_generated_traffic_gives_the_generators_truth(spark: Session) -> None:
    """The generator counts what it makes while it makes it: repeated, late and bots' events are among it."""
    settings = TrafficSettings(visitors_per_day=400, days=2, bot_share=0.03)
    truth = Truth(settings)
    events = landed(spark, [record.value for record in generate(settings, truth)], MIDNIGHT)
    cells: dict[tuple[str, str], list[int]] = {}
    for (_, choice), cell in truth.cells.items():
        found = cells.setdefault((choice.experiment_id, choice.variation_id), [0, 0, 0])
        for n, value in enumerate((cell.visitors, cell.purchasers, cell.revenue)):
            found[n] += value
    experiments = []
    for name in sorted({experiment for experiment, _ in cells}):
        variations = {variation: {"name": variation} for experiment, variation in cells if experiment == name}
        experiments.append({"id": name, "since": "2026-11-01", "control": min(variations), "variations": variations,
                            "metrics": ["buys", "revenue"]})  # fmt: skip
    analysis = Analysis.model_validate({**declared().model_dump(), "experiments": experiments})
    rows = analysed_rows(events, days_of(DAY, date(2026, 11, 3)), analysis)
    last = {(row["metric"], row["experiment_id"], row["variation_id"]): row for row in rows
            if row["part"] == "result" and row["scope"] == "to_date" and row["date"] == date(2026, 11, 2)}  # fmt: skip
    for (experiment, variation), (visitors, purchasers, revenue) in cells.items():
        assert last["buys", experiment, variation]["visitors"] == visitors
        assert last["buys", experiment, variation]["total"] == purchasers
        assert last["revenue", experiment, variation]["total"] == revenue
    bots = sum(row["count"] for row in rows if row["part"] == "quality" and row["reason"] == "bot")
    assert bots == truth.bot_events


def test_quantiles_and_cuped_are_those_of_the_visitors(spark: Session) -> None:
    rng = np.random.default_rng(3)
    values, sums, before = [], {"a": [], "b": []}, {"a": [], "b": []}  # type: ignore[var-annotated]
    for variation in "ab":
        for n in range(60):
            early, late = (int(cents) for cents in rng.lognormal(5, 1, 2))
            late += early
            name = f"{variation}{n}"
            values.append(batch(name, purchase(MIDNIGHT - HOUR, f"b-{name}", revenue=early),
                                exposure(MIDNIGHT, f"d-{name}", variation),
                                purchase(MIDNIGHT + HOUR, f"p-{name}", revenue=late)))  # fmt: skip
            sums[variation].append(late)
            before[variation].append(early)
    metrics = {
        "adjusted": {"kind": "sum", "event": "purchase", "value": "revenue", "adjust": True},
        "p90": {"kind": "quantile", "event": "purchase", "value": "revenue", "quantile": 0.9},
    }
    analysis = declared(metrics=metrics, experiment={"metrics": ["adjusted", "p90"]})
    found = results(landed(spark, values), analysis)
    low, at, high = ranks(60, 0.9, 0.05)
    ordered = {variation: np.sort(cents) for variation, cents in sums.items()}
    quantile = {v: Quantile(60, o[at - 1], o[low - 1], o[high - 1]) for v, o in ordered.items()}
    expected = compare_quantiles(quantile["a"], quantile["b"], Settings())
    assert found["p90", "b"]["treatment"] == quantile["b"].value
    assert found["p90", "b"]["difference_low"] == pytest.approx(expected.difference_low)
    arms = []
    for variation in "ab":
        cov = np.cov(sums[variation], before[variation])
        means = {"value": float(np.mean(sums[variation])), "before": float(np.mean(before[variation]))}
        variances = {"value": float(cov[0, 0]), "before": float(cov[1, 1])}
        arms.append(Aggregates(60, means, variances, {("before", "value"): float(cov[0, 1])}))
    adjusted = compare(*arms, Settings(), adjusted=True)
    assert found["adjusted", "b"]["method"] == "welch, cuped"
    assert found["adjusted", "b"]["p_value"] == pytest.approx(adjusted.p_value)
    assert found["adjusted", "b"]["difference"] == pytest.approx(adjusted.difference)
