"""Results to HBase, where the results page reads them: the same rows to Prod and to Loki."""

from collections.abc import Iterable
from typing import Any

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.results import Row
from pipeline_lib.config import Config
from pipeline_lib.errors import ServerUnavailable
from pipeline_lib.hbase.clusters import CLUSTERS, open_cluster
from pipeline_lib.hbase.results import Result, write_results
from pipeline_lib.log import fact
from pipeline_lib.timespan import day_bounds, to_ms

_PUBLISHED = (
    "visitors", "total", "lift", "lift_low", "lift_high", "p_value", "q_value", "always_valid_low", "always_valid_high",
    "always_valid_p", "reason",
)  # fmt: skip


def published(rows: Iterable[Row], analysis: Analysis) -> list[Result]:
    """What was found to the end of each day, as rows of the results tables; days in order, so that the last one stands."""
    names = {(e.id, v): variation.name for e in analysis.experiments for v, variation in e.variations.items()}
    found = []
    for row in rows:
        if row["part"] == "result" and row["scope"] == "to_date":
            until = day_bounds(row["date"], analysis.time_zone)[1]
            values: dict[str, Any] = {
                "name": names[row["experiment_id"], row["variation_id"]],
                "value": row["treatment"],
            }
            values |= {name: row[name] for name in _PUBLISHED if row.get(name) not in (None, "")}
            key = (row["experiment_id"], row["metric"], row["segment"], row["variation_id"])
            found.append(Result(*key, {n: v for n, v in values.items() if v is not None}, to_ms(until)))
    return sorted(found, key=lambda each: each.until_ms)


def publish(config: Config, rows: Iterable[Row], analysis: Analysis) -> list[str]:
    """Writes the rows to each cluster that the deployment has; the names of those that do not answer."""
    results = published(rows, analysis)
    away: list[str] = []
    for name in CLUSTERS:
        if getattr(config.hbase, name):
            try:
                with open_cluster(config, name) as cluster:
                    write_results(cluster, results)
            except ServerUnavailable as error:
                fact("not_published", cluster=name, error=str(error))
                away.append(name)
    return away
