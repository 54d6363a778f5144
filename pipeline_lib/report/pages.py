"""The pages' content, from rows of a results table; templates stand beside this file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from pipeline_lib.analysis.declaration import Analysis, Experiment
from pipeline_lib.report.plots import funnel, over_time, retention, traffic, visitors

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """One metric of an experiment."""

    name: str
    kind: str
    rows: Sequence[Row]
    segments: Mapping[str, Sequence[Row]]
    plot: Markup


def pages(rows: Iterable[Row], hours: Sequence[Row], name: str, analysis: Analysis) -> dict[str, str]:
    """The HTML of each file by its name; experiments without any result yet have a line in the index only.

    Args:
        rows: of the results table.
        hours: rows of traffic.by_hour for the index, in their order.
    """
    by_experiment: dict[str, list[Row]] = {experiment.id: [] for experiment in analysis.experiments}
    general: list[Row] = []
    order = {(e.id, key): n for e in analysis.experiments for n, key in enumerate(e.variations)}
    for row in sorted(rows, key=lambda row: order.get((row["experiment_id"], str(row.get("variation_id"))), -1)):
        by_experiment.get(row["experiment_id"], general).append(row)
    files, lines = {}, []
    for experiment in analysis.experiments:
        found = by_experiment[experiment.id]
        day = max((row["date"] for row in found if row["part"] == "result"), default=None)
        title = experiment.name or experiment.id
        if day is None:
            lines.append({"title": title, "file": None, "until": None, "alarm": False, "visitors": 0})
            continue
        samples = [row for row in found if row["part"] == "sample" and row["date"] == day]
        file = f"{_file_name(experiment.id)}.html"
        files[file] = _page(experiment, title, found, general, samples, day, analysis)
        alarm = any(row["alarm"] for row in samples)
        total = sum(row["visitors"] for row in samples)
        lines.append({"title": title, "file": file, "until": day, "alarm": alarm, "visitors": total})
    lines.sort(key=lambda line: -line["visitors"])  # type: ignore[operator]
    files["index.html"] = render(
        "index.html.j2", name=name, topic=analysis.topic, zone=analysis.time_zone, lines=lines,
        traffic=Markup(traffic(hours)), sessions=_sessions(general),
    )  # fmt: skip
    return files


def _page(
    experiment: Experiment,
    title: str,
    found: list[Row],
    general: list[Row],
    samples: list[Row],
    day: date,
    analysis: Analysis,
) -> str:
    quality: dict[str, int] = {}
    for row in [*found, *general]:
        if row["part"] == "quality" and row["reason"] != "counted":
            quality[row["reason"]] = quality.get(row["reason"], 0) + row["count"]
    return render(
        "experiment.html.j2",
        experiment=experiment, title=title, day=day, names={k: v.name for k, v in experiment.variations.items()},
        samples=samples, quality=dict(sorted(quality.items())), zone=analysis.time_zone, alpha=analysis.alpha,
        traffic=Markup(visitors(_by_variation(experiment, found, "sample"))),
        sections=[_section(experiment, metric, found, day, analysis) for metric in experiment.metrics],
        funnels=_funnels(experiment, found, day, analysis),
        retention=Markup(retention(_retention(experiment, found))),
    )  # fmt: skip


def _section(experiment: Experiment, metric: str, found: list[Row], day: date, analysis: Analysis) -> Section:
    own = [row for row in found if row.get("metric") == metric and row["scope"] == "to_date"]
    last = [row for row in own if row["date"] == day]
    names = sorted({row["segment"] for row in last} - {"all"})
    whole = [row for row in own if row["segment"] == "all"]
    series = _by_variation(experiment, whole, "result")
    series[experiment.variations[experiment.control].name] = []
    return Section(
        metric,
        analysis.metrics[metric].kind,
        [row for row in last if row["segment"] == "all"],
        {name: [row for row in last if row["segment"] == name] for name in names},
        Markup(over_time(series)),
    )


def _funnels(experiment: Experiment, found: list[Row], day: date, analysis: Analysis) -> dict[str, Markup]:
    """The plots by the funnels' names; one without rows of the day is left out."""
    plots = {}
    for name in experiment.funnels:
        own = [row for row in found if row.get("metric") == name and row["date"] == day]
        series = _by_variation(experiment, sorted(own, key=lambda row: row.get("step") or 0), "funnel")
        steps = [step.event or "any event" for step in analysis.funnels[name].steps]
        plots[name] = Markup(funnel(series, steps))
    return {name: plot for name, plot in plots.items() if plot}


def _retention(experiment: Experiment, found: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """Days since the exposure and the share who are back then, of all cohorts that were followed that long."""
    curves = {}
    for variation, rows in _by_variation(experiment, found, "retention").items():
        ages: dict[int, list[Row]] = {}
        for row in rows:
            ages.setdefault((row["date"] - row["cohort"]).days, []).append(row)
        curves[variation] = [
            (age, sum(row["count"] for row in rows) / sum(row["visitors"] for row in rows))
            for age, rows in sorted(ages.items())
        ]
    return curves


def _sessions(general: Iterable[Row]) -> Sequence[tuple[date, Mapping[str, float]]]:
    """The figures of each day's sessions by their names, the newest day first, two weeks of them."""
    days: dict[date, dict[str, float]] = {}
    for row in general:
        if row["part"] == "session":
            days.setdefault(row["date"], {})[row["metric"]] = row["total"]
    return sorted(days.items(), reverse=True)[:14]


def _by_variation(experiment: Experiment, found: Iterable[Row], part: str) -> dict[str, list[Row]]:
    ordered = sorted((row for row in found if row["part"] == part), key=lambda row: row["date"])
    return {
        variation.name: [row for row in ordered if row["variation_id"] == key]
        for key, variation in experiment.variations.items()
    }


def render(template: str, **values: Any) -> str:
    """A template filled in; a value that it names and does not get is an error."""
    environment = Environment(
        loader=PackageLoader("pipeline_lib.report", "."), autoescape=select_autoescape(["html.j2"], default=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    filters: dict[str, Callable[[Any], str]] = {
        "figure": _figure,
        "share": _share,
        "part": _part,
        "p": _p,
        "clock": _clock,
    }
    environment.filters.update(filters)
    return str(environment.get_template(template).render(**values))


def _figure(value: float | None) -> str:
    """Four digits, thousands apart."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}".replace("-", "−")


def _part(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _clock(seconds: float | None) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _file_name(experiment: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in experiment).replace("%", "x")
