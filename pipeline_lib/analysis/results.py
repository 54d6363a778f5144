"""From sufficient statistics to what people read: each variation beside its control, and whether the sample can be
trusted. Plain Python on the driver."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from itertools import combinations
from typing import Any

from tea_tasting.aggr import Aggregates

from pipeline_lib.analysis.declaration import Analysis, Experiment
from pipeline_lib.analysis.inference.compare import Comparison, Settings, compare
from pipeline_lib.analysis.inference.discovery import adjust
from pipeline_lib.analysis.inference.quantiles import Quantile, compare_quantiles
from pipeline_lib.analysis.inference.srm import sample_ratio, sequential_sample_ratio
from pipeline_lib.analysis.moments import SCOPES, value_columns

NUMBERS = (
    "control", "treatment", "difference", "difference_low", "difference_high", "lift", "lift_low", "lift_high",
    "p_value", "q_value", "always_valid_low", "always_valid_high", "always_valid_p", "detectable", "total",
)  # fmt: skip
DDL = (
    "date DATE, part STRING, experiment_id STRING, metric STRING, segment STRING, variation_id STRING, scope STRING, "
    "visitors BIGINT, count BIGINT, step INT, cohort DATE, method STRING, reason STRING, alarm BOOLEAN, expected DOUBLE, "
    + ", ".join(f"{name} DOUBLE" for name in NUMBERS)
)
"""One table, so that one commit replaces all that is said of a day. `part`: `result` (a metric of a variation), `sample`
(the SRM test of an experiment; a row a variation), `quality` (events and visitors by what became of them), `funnel`
(`metric` is its name; of `visitors` to date `count` came to `step`), `retention` (of the `visitors` exposed on the day
`cohort`, `count` were back on the day), `session` (a figure of the day's sessions, `metric`, is `total`)."""

Row = dict[str, Any]
Group = tuple[str, date, str, str]
"""Experiment, day, segment, variation."""


def settings_of(analysis: Analysis) -> Settings:
    return Settings(analysis.alpha, analysis.power, analysis.tuning)


def result_rows(
    found: Mapping[Group, Mapping[str, Any]],
    order: Mapping[tuple[str, str], Mapping[Group, Quantile]],
    analysis: Analysis,
) -> list[Row]:
    """The rows of every experiment, day, segment, metric and variation, with the false discovery rate controlled over
    the metrics and variations that are read together: those of one experiment, day, segment and scope.

    Args:
        found: columns of `moments` by group.
        order: order statistics by quantile metric and scope.
    """
    rows: list[Row] = []
    for experiment in analysis.experiments:
        pages = sorted({(day, segment) for name, day, segment, _ in found if name == experiment.id})
        for day, segment in pages:
            for scope in SCOPES:
                page = [
                    _row(experiment, variation, metric, scope, day, segment, found, order, analysis)
                    for metric in experiment.metrics
                    for variation in experiment.variations
                ]
                for row, q_value in zip(page, adjust([row["p_value"] for row in page]), strict=True):
                    rows.append({**row, "q_value": q_value})
    return rows


def _row(
    experiment: Experiment,
    variation: str,
    name: str,
    scope: str,
    day: date,
    segment: str,
    found: Mapping[Group, Mapping[str, Any]],
    order: Mapping[tuple[str, str], Mapping[Group, Quantile]],
    analysis: Analysis,
) -> Row:
    groups = [(experiment.id, day, segment, each) for each in (experiment.control, variation)]
    moments = found.get(groups[1], {})
    row = {"date": day, "part": "result", "experiment_id": experiment.id, "metric": name, "segment": segment,
           "variation_id": variation, "scope": scope, "visitors": moments.get("visitors", 0),
           "total": moments.get(f"{name}.{scope}.total")}  # fmt: skip
    metric, settings = analysis.metrics[name], settings_of(analysis)
    if any(group not in found for group in groups):
        absent = [group[3] for group in groups if group not in found]
        done = Comparison(reason=f"no visitor of variation {', '.join(dict.fromkeys(absent))}")
    elif metric.kind == "quantile":
        control, treatment = (order[name, scope][group] for group in groups)
        done = compare_quantiles(control, treatment, settings)
    else:
        columns = value_columns(list(analysis.measures), name, metric, scope)
        a, b = (aggregates(found[group], f"{name}.{scope}", sorted(columns)) for group in groups)
        done = compare(a, b, settings, ratio=metric.kind == "ratio", adjusted="before" in columns)
    if variation == experiment.control:
        done = Comparison(control=done.control, treatment=done.control, reason=done.reason or "control")
    return row | asdict(done)


def aggregates(row: Mapping[str, Any], prefix: str, parts: Sequence[str]) -> Aggregates:
    """Sufficient statistics as tea-tasting takes them; null (of a single visitor) becomes NaN."""
    return Aggregates(
        count_=row["visitors"],
        mean_={part: _number(row[f"{prefix}.mean.{part}"]) for part in parts},
        var_={part: _number(row[f"{prefix}.var.{part}"]) for part in parts},
        cov_={(a, b): _number(row[f"{prefix}.cov.{a}.{b}"]) for a, b in combinations(parts, 2)},
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def sample_rows(
    found: Mapping[Group, Mapping[str, Any]], joined: Mapping[tuple[str, date, str], int], analysis: Analysis
) -> list[Row]:
    """Whether the visitors of each experiment divide as declared, by each day.

    Args:
        found: columns of `moments` by group: the visitors who are analysed.
        joined: visitors by experiment, day of exposure and variation: the test that allows daily looks needs every day
            since the first, whichever days are analysed.
    """
    rows: list[Row] = []
    for experiment in analysis.experiments:
        split = {name: variation.share for name, variation in experiment.variations.items()}
        looks = _to_date(experiment, joined)
        always_valid = dict(zip(looks, sequential_sample_ratio(list(looks.values()), split), strict=True))
        for day in sorted({day for name, day, _, _ in found if name == experiment.id}):
            groups = {name: found.get((experiment.id, day, "all", name), {}) for name in split}
            counts = {name: int(group.get("visitors", 0)) for name, group in groups.items()}
            tested = sample_ratio(counts, split)
            known = [p for look, p in always_valid.items() if look <= day]
            rows += [
                {
                    "date": day, "part": "sample", "experiment_id": experiment.id, "variation_id": variation,
                    "visitors": visitors, "expected": tested.expected.get(variation), "p_value": tested.p_value,
                    "always_valid_p": min(known, default=None), "alarm": tested.alarm, "reason": tested.reason,
                }
                for variation, visitors in counts.items()
            ]  # fmt: skip
    return rows


def _to_date(experiment: Experiment, joined: Mapping[tuple[str, date, str], int]) -> dict[date, dict[str, int]]:
    """The visitors of each variation by the end of each day on which one joined."""
    found: dict[date, dict[str, int]] = {}
    counts = dict.fromkeys(experiment.variations, 0)
    for day in sorted({day for name, day, _ in joined if name == experiment.id}):
        counts = {name: count + joined.get((experiment.id, day, name), 0) for name, count in counts.items()}
        found[day] = counts
    return found


def quality_rows(counted: Iterable[tuple[date, str, str, int]]) -> list[Row]:
    """Rows of day, experiment, reason and count."""
    return [
        {"date": day, "part": "quality", "experiment_id": experiment, "reason": reason, "count": count}
        for day, experiment, reason, count in sorted(counted)
    ]


def funnel_rows(counted: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of funnels.funnel_counts."""
    found = [
        {"date": row["day"], "part": "funnel", "experiment_id": row["experiment_id"], "metric": row["funnel"],
         "segment": "all", "variation_id": row["variation_id"], "scope": "to_date", "step": row["step"],
         "visitors": row["exposed"], "count": row["reached"]}
        for row in counted
    ]  # fmt: skip
    return sorted(found, key=lambda r: (r["date"], r["experiment_id"], r["metric"], r["variation_id"], r["step"]))


def retention_rows(counted: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of retention.returned."""
    found = [
        {"date": row["day"], "part": "retention", "experiment_id": row["experiment_id"], "segment": "all",
         "variation_id": row["variation_id"], "scope": "day", "cohort": row["cohort"], "visitors": row["visitors"],
         "count": row["returned"]}
        for row in counted
    ]  # fmt: skip
    return sorted(found, key=lambda r: (r["date"], r["experiment_id"], r["variation_id"], r["cohort"]))


def session_rows(counted: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of sessions.session_figures; a figure that no session has is left out."""
    return [
        {"date": row["date"], "part": "session", "experiment_id": "", "metric": name, "segment": "all", "scope": "day",
         "total": value}
        for row in sorted(counted, key=lambda row: row["date"])
        for name, value in row.items()
        if name != "date" and value is not None
    ]  # fmt: skip
