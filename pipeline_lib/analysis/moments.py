"""From visitors to sufficient statistics: what the tests need of the visitors of a variation, and no visitor's own row.

Scope `to_date` is all that a visitor did until the end of the day, `day` that day alone; both of all visitors who were
exposed by then.
"""

from collections.abc import Sequence
from datetime import date

from pipeline_lib.analysis.declaration import Analysis, Metric
from pipeline_lib.analysis.visitors import not_excluded
from pipeline_lib.io.spark import Column, Frame, Window
from pipeline_lib.io.spark import functions as F

GROUP = ("experiment_id", "day", "segment", "variation_id")
SCOPES = ("to_date", "day")


def visitors_to_date(days: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """One row a visitor, experiment and wanted day since the exposure: the measures `to_date_N`, `day_N`, `before_N`."""
    numbers = range(len(analysis.measures))
    ends = F.filter(F.array(*map(F.lit, wanted)), lambda end: end >= F.col("day"))
    each = days.withColumn("end", F.explode(ends))
    each = each.where(not_excluded(analysis, by="end"))
    sums = [F.coalesce(F.sum(f"done_{n}"), F.lit(0.0)).alias(f"to_date_{n}") for n in numbers]
    today = F.col("day") == F.col("end")
    sums += [F.coalesce(F.sum(F.when(today, F.col(f"done_{n}"))), F.lit(0.0)).alias(f"day_{n}") for n in numbers]
    sums += [F.coalesce(F.sum(f"before_{n}"), F.lit(0.0)).alias(f"before_{n}") for n in numbers]
    who = ("experiment_id", "visitor_id", "variation_id", "segments")
    found = each.groupBy(*who, "end").agg(*sums).withColumnRenamed("end", "day")
    return _winsorised(_counted_once(found, analysis), analysis)


def _counted_once(visitors: Frame, analysis: Analysis) -> Frame:
    """A conversion is whether there was one."""
    for n, metric in enumerate(analysis.measures.values()):
        if metric.kind == "conversion":
            for name in (f"to_date_{n}", f"day_{n}", f"before_{n}"):
                visitors = visitors.withColumn(name, (F.col(name) > 0).cast("double"))
    return visitors


def _winsorised(visitors: Frame, analysis: Analysis) -> Frame:
    """Values above a metric's threshold become the threshold, which is that of all variations together: one for each
    would hide a difference, or make one (avast/ep-stats#99)."""
    capped = {n: metric.winsorise for n, metric in enumerate(analysis.measures.values()) if metric.winsorise}
    if not capped:
        return visitors
    names = [f"{part}_{n}" for n in capped for part in (*SCOPES, "before")]
    shares = {f"{part}_{n}": share for n, share in capped.items() for part in (*SCOPES, "before")}
    limits = visitors.groupBy("experiment_id", "day").agg(
        *(F.percentile(name, F.lit(shares[name])).alias(f"limit_{name}") for name in names)
    )
    found = visitors.join(F.broadcast(limits), ["experiment_id", "day"])
    for name in names:
        found = found.withColumn(name, F.least(name, f"limit_{name}"))
    return found.drop(*(f"limit_{name}" for name in names))


def moments(visitors: Frame, analysis: Analysis) -> Frame:
    """Of each group `visitors`, and for each metric and scope what `columns_of` names."""
    each = visitors.withColumn("segment", F.explode("segments"))
    found = [F.count("*").alias("visitors")]
    numbers = list(analysis.measures)
    for name, metric in analysis.metrics.items():
        if metric.kind == "quantile":
            continue
        for scope in SCOPES:
            columns = value_columns(numbers, name, metric, scope)
            pairs = [(a, b) for a in columns for b in columns if a < b]
            found += [F.avg(columns[a]).alias(f"{name}.{scope}.mean.{a}") for a in columns]
            found += [F.var_samp(columns[a]).alias(f"{name}.{scope}.var.{a}") for a in columns]
            found += [F.covar_samp(columns[a], columns[b]).alias(f"{name}.{scope}.cov.{a}.{b}") for a, b in pairs]
            found.append(F.sum(columns["value"]).alias(f"{name}.{scope}.total"))
    return each.groupBy(*GROUP).agg(*found)


def value_columns(numbers: Sequence[str], name: str, metric: Metric, scope: str) -> dict[str, str]:
    """The columns of a visitors frame that a metric is made of, by their part in it; CUPED's only where it is wanted:
    it takes nothing from a single day."""
    top = numbers.index(metric.numerator or name)
    columns = {"value": f"{scope}_{top}"}
    if metric.kind == "ratio":
        columns["denominator"] = f"{scope}_{numbers.index(metric.denominator)}"
    if metric.adjust and scope == "to_date":
        columns["before"] = f"before_{top}"
        if metric.kind == "ratio":
            columns["before_denominator"] = f"before_{numbers.index(metric.denominator)}"
    return columns


def quantiles(visitors: Frame, analysis: Analysis, z: float) -> list[tuple[str, str, Frame]]:
    """For each quantile metric and scope a frame of GROUP, `visitors`, `value`, `low`, `high`: the order statistics
    around the quantile, by which its variance is told (inference.quantiles.ranks, the same formula)."""
    found = []
    for n, (name, metric) in enumerate(analysis.measures.items()):
        if metric.kind == "quantile":
            found += [
                (name, scope, _order_statistics(visitors, f"{scope}_{n}", metric.quantile, z)) for scope in SCOPES
            ]
    return found


def _order_statistics(visitors: Frame, column: str, quantile: float, z: float) -> Frame:
    each = visitors.withColumn("segment", F.explode("segments")).select(*GROUP, F.col(column).alias("measure"))
    group = Window.partitionBy(*GROUP)
    each = each.withColumn("rank", F.row_number().over(group.orderBy("measure")))
    each = each.withColumn("visitors", F.count("*").over(group))
    half = z * F.sqrt(F.col("visitors") * quantile * (1 - quantile))
    middle = F.col("visitors") * quantile
    ranks = {"value": F.ceil(middle), "low": F.floor(middle - half), "high": F.ceil(middle + half) + 1}
    return each.groupBy(*GROUP).agg(
        F.max("visitors").alias("visitors"),
        *(F.max(F.when(F.col("rank") == _within(at), F.col("measure"))).alias(name) for name, at in ranks.items()),
    )


def _within(rank: Column) -> Column:
    return F.least(F.greatest(rank, F.lit(1)), F.col("visitors"))
