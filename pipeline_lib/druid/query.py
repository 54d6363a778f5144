"""Questions to Druid through pydruid: what stands on top, how it went over time, how many distinct."""

from typing import Annotated, Any, Literal

import typer

from pipeline_lib.config import load_config
from pipeline_lib.druid.cli import DatasourceName, Since, Until, optional_span
from pipeline_lib.druid.declaration import ROWS, Datasource
from pipeline_lib.druid.run import ETERNITY
from pipeline_lib.druid.sources import Source, druid_settings, find_source
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.druid import Druid
from pipeline_lib.job import AsJson, ConfigPath
from pipeline_lib.output import print_result, print_rows
from pipeline_lib.timespan import TimeSpan

Order = Literal["all", "hour", "day"]


def main(
    datasource: DatasourceName,
    metric: Annotated[str, typer.Option(help="The metric to order by; default: rows.")] = ROWS,
    by: Annotated[str | None, typer.Option(help="A dimension: its values, the most first.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="DIMENSION=VALUE; can be repeated.")] = None,
    granularity: Annotated[Order, typer.Option(help="A row an hour or a day, or one of all.")] = "all",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    since: Since = None,
    until: Until = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Ask Druid: every metric over time, or by the values of a dimension; sketches with their bounds at 95 %."""
    deployment = load_config(config)
    source = find_source(deployment, datasource)
    rows = ask(
        Druid(druid_settings(deployment)),
        source,
        metric,
        by,
        where or [],
        granularity,
        limit,
        optional_span(since, until),
    )
    if as_json:
        print_result({"datasource": source.name, "rows": rows}, as_json)
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[_text(row.get(name)) for name in names] for row in rows]
    print_rows(source.name, names, lines, right=[name for name in names if name not in ("time", by)])


def ask(
    druid: Druid, source: Source, metric: str, by: str | None, where: list[str], granularity: Order, limit: int,
    span: TimeSpan | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of `time` (unless granularity is all), the dimension and every metric.

    Raises:
        ConfigError: a name that the datasource does not declare.
    """
    declared = source.declared
    conditions = [_condition(declared, text) for text in where]
    if by is not None and by not in declared.dimensions:
        raise ConfigError(f"--by {by}: {source.name} has no such dimension; it has {', '.join(declared.dimensions)}")
    if metric != ROWS and metric not in declared.metrics:
        raise ConfigError(f"--metric {metric}: {source.name} has {', '.join([ROWS, *declared.metrics])}")
    common: dict[str, Any] = {
        "datasource": source.name,
        "granularity": granularity,
        "intervals": f"{span.since:%Y-%m-%dT%H:%M:%S}/{span.until:%Y-%m-%dT%H:%M:%S}" if span else ETERNITY,
        "aggregations": _aggregations(declared),
        "post_aggregations": _bounds(declared),
    }
    if conditions:
        common["filter"] = _Raw({"type": "and", "fields": [_Raw(condition) for condition in conditions]})
    if by is None:
        return [
            _row(part["timestamp"], part["result"], granularity) for part in druid.queries.timeseries(**common).result
        ]
    # groupBy and not topN, which is approximate where a dimension has more than a thousand values
    order = {
        "type": "default",
        "limit": limit,
        "columns": [_descending(metric), *([] if metric == ROWS else [_descending(ROWS)])],
    }
    found = druid.queries.groupby(**common, dimensions=[by], limit_spec=order).result
    return [_row(part["timestamp"], part["event"], granularity) for part in found]


class _Raw:
    """A filter in Druid's words, where pydruid wants an object."""

    extraction_function = None

    def __init__(self, words: dict[str, Any]) -> None:
        self.filter = {"filter": words}


class _Bounds:
    """Estimate and bounds of a theta sketch: a post-aggregation that pydruid does not have."""

    def __init__(self, name: str) -> None:
        field = {"type": "fieldAccess", "fieldName": name}
        self.post_aggregator = {"type": "thetaSketchEstimate", "name": name, "field": field, "errorBoundsStdDev": 2}
        self.name = name


def _descending(name: str) -> dict[str, str]:
    return {"dimension": name, "direction": "descending", "dimensionOrder": "numeric"}


def _aggregations(declared: Datasource) -> dict[str, Any]:
    kinds = {"theta": "thetaSketch", "hll": "HLLSketchMerge"}
    found: dict[str, Any] = {ROWS: {"type": "longSum", "fieldName": ROWS}}
    for name, metric in declared.metrics.items():
        number, _, what = metric.kind.partition("_")
        found[name] = {"type": kinds.get(metric.kind, f"{number}{what.title()}"), "fieldName": name}
        if metric.kind == "theta":
            found[name]["size"] = metric.size
    return found


def _bounds(declared: Datasource) -> dict[str, _Bounds]:
    return {f"{name}_bounds": _Bounds(name) for name, metric in declared.metrics.items() if metric.kind == "theta"}


def _condition(declared: Datasource, text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in declared.dimensions:
        raise ConfigError(f"--where {text}: give DIMENSION=VALUE; dimensions are {', '.join(declared.dimensions)}")
    return {"type": "selector", "dimension": name, "value": value or None}


def _row(time: str, values: dict[str, Any], granularity: Order) -> dict[str, Any]:
    row: dict[str, Any] = {} if granularity == "all" else {"time": time}
    for name, value in values.items():
        if isinstance(value, dict):
            stem = name.removesuffix("_bounds")
            row |= {f"{stem}_low": value["lowBound"], f"{stem}_high": value["highBound"]}
        else:
            row[name] = value
    return row


def _text(value: object) -> str:
    return "" if value is None else f"{value:,.0f}" if isinstance(value, int | float) else str(value)
