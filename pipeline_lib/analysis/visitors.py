"""From events to visitors: who was exposed to what, when, and what each of them did, by day.

One row a visitor and experiment in an exposures frame; one a visitor, experiment and day in a days frame. A measure's
columns are numbered in the order of Analysis.measures: `done_N` is what counts of a day's events, `before_N` the same
from before the exposure.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import reduce

from pipeline_lib.analysis.declaration import Analysis, Experiment, Fitting, Metric
from pipeline_lib.analysis.events import day_of, given, is_decision, number, text
from pipeline_lib.io.spark import Column, Frame
from pipeline_lib.io.spark import functions as F

WHO = ("experiment_id", "visitor_id", "variation_id", "exposed_on", "several_on", "segments")


def segment_names(analysis: Analysis) -> list[str]:
    return sorted({name for experiment in analysis.experiments for name in experiment.segments})


def event_columns(analysis: Analysis) -> dict[str, Column]:
    """What is known of an event before it is slimmed.

    `adds_N` is what a measure takes of it (null: nothing), `steps_N` are the steps of a funnel that it fits, as bits;
    `returns`: whether it counts for retention; and a decision's segment attributes.
    """
    measures = analysis.measures.values()
    columns = {f"adds_{n}": F.when(_measured(m), number(m.value) if m.value else F.lit(1.0))
               for n, m in enumerate(measures)}  # fmt: skip
    for n, funnel in enumerate(analysis.funnels.values()):
        bits = [F.when(_fits(step), F.lit(1 << at)).otherwise(0) for at, step in enumerate(funnel.steps)]
        columns[f"steps_{n}"] = reduce(lambda a, b: a.bitwiseOR(b), bits)
    back = analysis.retention
    columns["returns"] = F.coalesce(_fits(back), F.lit(False)) if back.event or back.where else F.lit(True)
    columns["revenue"] = number("revenue")
    wrong = (_fits(m) & given(m.value) & number(m.value).isNull() for m in measures if m.value)
    columns["not_a_number"] = F.coalesce(_any(wrong), F.lit(False))
    for n, name in enumerate(segment_names(analysis)):
        columns[f"attribute_{n}"] = F.when(is_decision(), _attribute(name))
    return columns


def _attribute(name: str) -> Column:
    return F.try_element_at(F.filter("attributes", lambda each: each["name"] == name), F.lit(1))["value"]


def _measured(metric: Metric) -> Column:
    """Any event makes a session; of the other measures a decision is none."""
    return F.lit(True) if all_sessions(metric) else _fits(metric)


def all_sessions(metric: Metric) -> bool:
    return metric.kind == "sessions" and not metric.event and not metric.where


def _fits(wanted: Fitting) -> Column:
    fits = ~is_decision()
    if wanted.event:
        fits &= F.col("event_name") == wanted.event
    for field, value in wanted.where.items():
        fits &= text(field) == value
    return fits


def exposures(events: Frame, analysis: Analysis) -> Frame:
    """The first (or last) exposure of each visitor to each declared experiment; `several_on`: the day on which the
    visitor was seen in a second variation.

    Args:
        events: judged ones; those that have a reason, and holdbacks, expose nobody.
    """
    decisions = events.where(F.col("reason").isNull() & exposes(analysis))
    names = segment_names(analysis)
    seen = F.struct("event_time", "variation_id", *(f"attribute_{n}" for n in range(len(names))))
    of_variation = decisions.groupBy("visitor_id", "experiment_id", "variation_id").agg(
        F.min(seen).alias("first"), F.max(seen).alias("last")
    )
    found = of_variation.groupBy("visitor_id", "experiment_id").agg(
        F.sort_array(F.collect_list("first")).alias("firsts"), F.max("last").alias("last")
    )
    last = F.col("experiment_id").isin([each.id for each in analysis.experiments if each.exposure == "last"])
    at = F.when(last, F.col("last")).otherwise(F.col("firsts")[0])
    return found.select(
        "experiment_id",
        "visitor_id",
        at["variation_id"].alias("variation_id"),
        at["event_time"].alias("exposed_at"),
        day_of(at["event_time"], analysis.time_zone).alias("exposed_on"),
        day_of(F.try_element_at("firsts", F.lit(2))["event_time"], analysis.time_zone).alias("several_on"),
        _segments(at, names, analysis.experiments).alias("segments"),
    )


def exposes(analysis: Analysis) -> Column:
    """Whether a decision exposes its visitor to one of the experiments."""
    held_back = F.coalesce("is_holdback", F.lit(False))
    return is_decision() & ~held_back & _any(_runs(each) & _declares(each) for each in analysis.experiments)


def exposed_by(exposed: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """The exposures with each wanted `day` from the exposure on, without the visitors whom an experiment excludes for
    what was known by then."""
    days = F.filter(F.array(*map(F.lit, wanted)), lambda day: day >= F.col("exposed_on"))
    return exposed.withColumn("day", F.explode(days)).where(not_excluded(analysis, by="day"))


def not_excluded(analysis: Analysis, by: str) -> Column:
    """Whether a visitor counts for what was known by a day, the column `by`."""
    strict = F.col("experiment_id").isin([e.id for e in analysis.experiments if e.several_variations == "exclude"])
    return ~strict | F.col("several_on").isNull() | (F.col("several_on") > F.col(by))


def visitor_days(events: Frame, exposed: Frame, analysis: Analysis) -> Frame:
    """What each exposed visitor did, by day; the day of exposure always has a row, so that nobody is missing.

    An event counts from the exposure on, until the end of the metric's window and of the experiment.
    """
    measures = list(analysis.measures.values())
    adds = [f"adds_{n}" for n in range(len(measures))]
    doing = events.where(F.col("reason").isNull() & _any(F.col(name).isNotNull() for name in adds))
    doing = doing.select("visitor_id", "event_time", "session_at", *adds)
    both = doing.join(exposed, "visitor_id")
    after = F.col("event_time") >= F.col("exposed_at")
    after &= F.col("event_time") < ends(analysis)
    pre = _of_experiment({e.id: e.pre_exposure_days for e in analysis.experiments}, 7)
    before = (F.col("event_time") < F.col("exposed_at")) & (_ms("event_time") >= _ms("exposed_at") - pre * 86_400_000)
    day = F.greatest(day_of(F.col("event_time"), analysis.time_zone), "exposed_on").alias("day")
    both = both.where(after | before).select(*WHO, day, "session_at", *_windowed(measures, after, before))
    by_session = [n for n, metric in enumerate(measures) if metric.kind == "sessions"]
    others = [n for n in range(len(measures)) if n not in by_session]
    sums = [F.sum(f"{part}_{n}").alias(f"{part}_{n}") for n in others for part in ("done", "before")]
    done = both.groupBy(*WHO, "day").agg(F.count("*").alias("_events"), *sums).drop("_events")
    if by_session:
        done = done.unionByName(_session_days(both, by_session), allowMissingColumns=True)
    return done.unionByName(exposed.select(*WHO, F.col("exposed_on").alias("day")), allowMissingColumns=True)


def _windowed(measures: Sequence[Metric], after: Column, before: Column) -> Iterable[Column]:
    for n, metric in enumerate(measures):
        window = after
        if metric.window_hours:
            window = after & (_ms("event_time") <= _ms("exposed_at") + int(metric.window_hours * 3_600_000))
        yield F.when(window, F.col(f"adds_{n}")).alias(f"done_{n}")
        yield F.when(before, F.col(f"adds_{n}")).alias(f"before_{n}")


def _session_days(both: Frame, numbers: Sequence[int]) -> Frame:
    """Each session once, on the day of its first event that counts: one over midnight is not two."""
    firsts = [F.min(F.when(F.col(f"done_{n}").isNotNull(), F.col("day"))).alias(f"on_{n}") for n in numbers]
    earlier = [F.max(f"before_{n}").alias(f"before_{n}") for n in numbers]
    found = both.groupBy(*WHO, "session_at").agg(*firsts, *earlier)
    days = F.array_distinct(F.array_compact(F.array("exposed_on", *(f"on_{n}" for n in numbers))))
    found = found.withColumn("day", F.explode(days))
    done = [F.when(F.col(f"on_{n}") == F.col("day"), F.lit(1.0)).alias(f"done_{n}") for n in numbers]
    once = F.col("day") == F.col("exposed_on")
    return found.select(*WHO, "day", *done, *(F.when(once, F.col(f"before_{n}")).alias(f"before_{n}") for n in numbers))


def ends(analysis: Analysis) -> Column:
    """The end of a row's experiment."""
    return _of_experiment({e.id: e.until for e in analysis.experiments if e.until}, _FOREVER)


_FOREVER = datetime.fromisoformat("9999-01-01T00:00:00+00:00")


def _of_experiment(values: Mapping[str, datetime | int], otherwise: datetime | int) -> Column:
    """A column with what an experiment's id stands for."""
    found = F.lit(otherwise)
    for name, value in values.items():
        found = F.when(F.col("experiment_id") == name, F.lit(value)).otherwise(found)
    return found


def _ms(name: str) -> Column:
    return F.unix_millis(name)


def _runs(experiment: Experiment) -> Column:
    runs = F.col("event_time") >= F.lit(experiment.since)
    return runs & (F.col("event_time") < F.lit(experiment.until)) if experiment.until else runs


def _declares(experiment: Experiment) -> Column:
    return (F.col("experiment_id") == experiment.id) & F.col("variation_id").isin(list(experiment.variations))


def _segments(at: Column, names: list[str], experiments: Iterable[Experiment]) -> Column:
    """`all`, and `NAME=VALUE` of each of the experiment's attributes that the visitor has."""
    found = [F.lit("all")]
    for n, name in enumerate(names):
        having = F.col("experiment_id").isin([each.id for each in experiments if name in each.segments])
        found.append(F.when(having, F.concat(F.lit(f"{name}="), at[f"attribute_{n}"])))
    return F.array_compact(F.array(*found))


def _any(conditions: Iterable[Column]) -> Column:
    return reduce(lambda a, b: a | b, conditions, F.lit(False))
