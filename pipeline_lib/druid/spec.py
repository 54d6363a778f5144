"""The ingestion task of a chunk, as a dict. Nobody hands in a spec of his own, so no input source but these is read."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

from pipeline_lib.druid.chunks import Chunk
from pipeline_lib.druid.declaration import ROWS, Datasource, Metric

Way = Literal["parquet", "json"]
"""How Druid gets the rows: the table's own Parquet files over HDFS, or compressed JSON over HTTP (WebHDFS)."""

_NO_COLUMN = "__lode_no_such_column"


def way_for(extensions: Collection[str]) -> Way:
    """Parquet where the cluster has loaded the extensions for it."""
    return "parquet" if {"druid-parquet-extensions", "druid-hdfs-storage"} <= set(extensions) else "json"


def ingestion_task(
    task: str, name: str, datasource: Datasource, chunk: Chunk, way: Way, uris: Sequence[str]
) -> dict[str, Any]:
    """Replaces a chunk by the rows of the files at `uris`; without any, by a tombstone that hides what was there."""
    source, reader = _input(way, uris)
    time = {"column": datasource.time or _NO_COLUMN, "format": "auto"}
    if not datasource.time:
        time["missingValue"] = chunk.interval.partition("/")[0]
    schema = {
        "dataSource": name,
        "timestampSpec": time,
        "dimensionsSpec": {"dimensions": [{"type": t, "name": n} for n, t in datasource.dimensions.items()]},
        "metricsSpec": [{"type": "count", "name": ROWS}, *(_metric(n, m) for n, m in datasource.metrics.items())],
        "granularitySpec": {
            "type": "uniform",
            "segmentGranularity": datasource.segment_granularity.upper(),
            "queryGranularity": datasource.query_granularity.upper(),
            "rollup": datasource.rollup,
            "intervals": [chunk.interval],
        },
    }
    # dropExisting with rows would empty the chunk where Druid finds none of them; without rows that is the purpose.
    io = {"type": "index_parallel", "inputSource": source, "inputFormat": reader, "appendToExisting": False}
    io["dropExisting"] = not uris
    # By default Druid ends with SUCCESS however many rows it could not read.
    tuning = {
        "type": "index_parallel",
        "maxParseExceptions": 0,
        "logParseExceptions": True,
        "maxNumConcurrentSubTasks": 1,
    }
    return {
        "type": "index_parallel",
        "id": task,
        "spec": {"dataSchema": schema, "ioConfig": io, "tuningConfig": tuning},
    }


def compaction_task(task: str, name: str, interval: str) -> dict[str, Any]:
    """Rewrites a chunk's segments as few of the usual size."""
    return {
        "type": "compact",
        "id": task,
        "dataSource": name,
        "ioConfig": {"type": "compact", "inputSpec": {"type": "interval", "interval": interval}},
        "tuningConfig": {"type": "index_parallel", "maxNumConcurrentSubTasks": 1},
    }


def retention_rules(datasource: Datasource) -> list[dict[str, Any]]:
    """Druid's rules for `keep_days`, with the values that it fills in itself, so that they can be compared; none where it
    keeps everything by the cluster's own rules."""
    if datasource.keep_days is None:
        return []
    return [
        {
            "type": "loadByPeriod",
            "period": f"P{datasource.keep_days}D",
            "includeFuture": True,
            "tieredReplicants": {"_default_tier": 2},
            "useDefaultTierForNull": True,
        },
        {"type": "dropForever"},
    ]


def _input(way: Way, uris: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    if not uris:  # Druid refuses an input without a byte: one header line that is skipped
        return {"type": "inline", "data": "-"}, {"type": "csv", "columns": ["none"], "skipHeaderRows": 1}
    if way == "parquet":
        return {"type": "hdfs", "paths": list(uris)}, {"type": "parquet"}
    return {"type": "http", "uris": list(uris)}, {"type": "json"}


def _metric(name: str, metric: Metric) -> dict[str, Any]:
    field = {"name": name, "fieldName": metric.field or name}
    if metric.kind == "theta":
        return {"type": "thetaSketch", "size": metric.size, **field}
    if metric.kind == "hll":
        return {"type": "HLLSketchBuild", "lgK": metric.lg_k, **field}
    number, _, what = metric.kind.partition("_")
    return {"type": f"{number}{what.title()}", **field}
