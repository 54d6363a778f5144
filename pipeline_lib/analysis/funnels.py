"""Funnels: how many of the visitors of a variation take each step after the ones before it, within a time.

A visitor has come to a step when some chain of events fits the steps in their order, each event another one, from the
exposure on, none more than the funnel's time after its first. Events of the same millisecond are taken in the order of
the steps.
"""

from collections.abc import Sequence
from datetime import date
from functools import reduce

from pipeline_lib.analysis.declaration import Analysis, Funnel
from pipeline_lib.analysis.events import day_of
from pipeline_lib.analysis.visitors import ends, exposed_by
from pipeline_lib.io.spark import Column, Frame
from pipeline_lib.io.spark import functions as F


def funnel_counts(events: Frame, exposed: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """Visitors to date by experiment_id, day, variation_id, funnel and step (from 1): those `exposed`, and `reached`.

    Args:
        events: judged ones with `steps_N` (visitors.event_columns).
    """
    found = exposed_by(_reached(events, exposed, analysis), wanted, analysis)
    group = ("experiment_id", "day", "variation_id")
    parts = []
    for n, name in enumerate(analysis.funnels):
        declared = F.col("experiment_id").isin([e.id for e in analysis.experiments if name in e.funnels])
        came = F.posexplode(f"reached_{n}").alias("at", "reached_ms")
        each = found.where(declared).select(*group, came)
        on = day_of(F.timestamp_millis("reached_ms"), analysis.time_zone)
        reached = F.count(F.when(on <= F.col("day"), 1)).alias("reached")
        step = (F.col("at") + 1).alias("step")
        counted = each.groupBy(*group, step).agg(F.count("*").alias("exposed"), reached)
        parts.append(counted.withColumn("funnel", F.lit(name)))
    return reduce(lambda a, b: a.unionByName(b), parts)


def _reached(events: Frame, exposed: Frame, analysis: Analysis) -> Frame:
    """The exposures with `reached_N`: when (ms) each step of a funnel was come to first, null where it was not."""
    funnels = list(analysis.funnels.values())
    fitting = [
        F.when(F.col(f"steps_{n}") > 0, F.struct(F.unix_millis("event_time").alias("at"), f"steps_{n}"))
        for n in range(len(funnels))
    ]
    fits = [F.col(f"steps_{n}") > 0 for n in range(len(funnels))]
    paths = events.where(F.col("reason").isNull() & reduce(lambda a, b: a | b, fits)).groupBy("visitor_id")
    lists = [F.sort_array(F.collect_list(each)).alias(f"path_{n}") for n, each in enumerate(fitting)]
    both = exposed.join(paths.agg(*lists), "visitor_id", "left")
    since, until = F.unix_millis("exposed_at"), F.unix_millis(ends(analysis))
    for n, funnel in enumerate(funnels):
        own = F.filter(f"path_{n}", lambda e: (e["at"] >= since) & (e["at"] < until))
        nobody = F.array(*[F.lit(None).cast("bigint") for _ in funnel.steps])
        both = both.withColumn(f"reached_{n}", F.coalesce(_walked(own, f"steps_{n}", funnel), nobody)).drop(f"path_{n}")
    return both


def _walked(path: Column, bits: str, funnel: Funnel) -> Column:
    """When each step was first come to. Of all chains that have come to a step the one that began last is kept: any event
    that another could go on with, it can go on with, too."""
    count, longest = len(funnel.steps), int(funnel.within_hours * 3_600_000)
    nothing = F.array(*[F.lit(None).cast("bigint") for _ in range(count)])

    def step(state: Column, event: Column) -> Column:
        began, reached = [], []
        for n in range(count):
            since = state["began"][n - 1] if n else event["at"]
            comes = (event[bits].bitwiseAND(1 << n) != 0) & (event["at"] - since <= longest)
            began.append(F.when(comes, since).otherwise(state["began"][n]))
            reached.append(F.coalesce(state["reached"][n], F.when(comes, event["at"])))
        return F.struct(F.array(*began).alias("began"), F.array(*reached).alias("reached"))

    start = F.struct(nothing.alias("began"), nothing.alias("reached"))
    return F.aggregate(path, start, step, lambda state: state["reached"])
