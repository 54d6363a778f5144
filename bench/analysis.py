"""The daily analysis of millions of events, beside what DuckDB takes for the metrics' aggregates of the same files.

Twenty experiments, ten metrics and a funnel over one day; the same with a tenth of the events, and with one visitor who
has a tenth of all events. DuckDB is the limit of one machine: it makes the moments of the ten metrics and nothing else, so
that Lode's moments alone stand beside it, too; both must be equal. Files are local: no server takes part.
`python -m bench.analysis` runs it alone; BENCH_EVENTS sets the events.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake
from rich.console import Console
from rich.table import Table

from bench.measure import Peak, spark_as_of
from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.moments import moments
from pipeline_lib.analysis.run import analyze, prepared
from pipeline_lib.codecs import CodecSettings, make_codec
from pipeline_lib.config import Config
from pipeline_lib.datasets import events_path
from pipeline_lib.io.analysis_tables import read_events
from pipeline_lib.io.spark import Session, session
from pipeline_lib.landing.rows import PARTITIONED_BY, landed_schema
from pipeline_lib.timespan import day_bounds

EVENTS, DAY, EXPERIMENTS = int(os.environ.get("BENCH_EVENTS", 10_000_000)), date(2026, 11, 1), 20
EVENTS_A_VISITOR, DECISIONS = 20, 3
MEASURES = {
    "buyers": {"kind": "conversion", "event": "purchase"},
    "purchases": {"kind": "count", "event": "purchase"},
    "views": {"kind": "count", "event": "view"},
    "shoe_views": {"kind": "count", "event": "view", "where": {"tags.category": "shoes"}},
    "early_buyers": {"kind": "conversion", "event": "purchase", "window_hours": 0.5},
    "revenue": {"kind": "sum", "event": "purchase", "value": "revenue"},
    "capped_revenue": {"kind": "sum", "event": "purchase", "value": "revenue", "winsorise": 0.99},
    "adjusted_views": {"kind": "count", "event": "view", "adjust": True},
}
RATIOS = {
    "order_value": {"kind": "ratio", "numerator": "revenue", "denominator": "purchases"},
    "views_a_purchase": {"kind": "ratio", "numerator": "views", "denominator": "purchases"},
}


def declared(topic: str) -> Analysis:
    metrics = MEASURES | RATIOS
    return Analysis.model_validate({
        "topic": topic,
        "metrics": metrics,
        "funnels": {"checkout": {"steps": [{"event": "view"}, {"event": "cart"}, {"event": "purchase"}]}},
        "experiments": [
            {"id": f"e{n}", "since": "2026-11-01", "control": f"e{n}-0", "metrics": list(metrics),
             "funnels": ["checkout"], "variations": {f"e{n}-{v}": {"name": f"v{v}"} for v in range(2)}}
            for n in range(EXPERIMENTS)
        ],
    })  # fmt: skip


def write_events(url: str, count: int, skewed: bool) -> None:
    """Visitors of twenty events within some hours: three decisions, then views, carts and purchases; in a hundred events
    one is a duplicate. Where `skewed`, every tenth event is of one visitor."""
    schema = landed_schema(make_codec(CodecSettings("optimizely-event-batch")))
    own = {
        "event_time": "happens", "_timestamp": "happens", "quality": "'ok'", "date": "happens::DATE",
        "hour": "date_part('hour', happens)::INT", "uuid": "md5(id::VARCHAR)",
        "visitor_id": "'visitor-' || visitor",
        "event_type": "CASE WHEN decides THEN 'decision' ELSE 'conversion' END",
        "experiment_id": "CASE WHEN decides THEN 'e' || experiment END",
        "variation_id": "CASE WHEN decides THEN 'e' || experiment || '-' || (hash(visitor, experiment) % 2) END",
        "event_name": "CASE WHEN decides THEN 'campaign_activated' ELSE name END",
        "revenue": "CASE WHEN name = 'purchase' AND NOT decides THEN (hash(id, 1) % 20000)::BIGINT END",
        "tags": "CASE WHEN NOT decides THEN MAP {'category': ['shoes', 'hats', 'bags'][1 + (hash(id, 2) % 3)::INT]} END",
        "bot_filtering": "false", "user_agent": "'Mozilla/5.0'", "is_holdback": "CASE WHEN decides THEN false END",
    }  # fmt: skip
    columns = ", ".join(f"{own.get(name, 'NULL')} AS {name}" for name in schema.names)
    visitor = f"(id // {EVENTS_A_VISITOR})"
    if skewed:
        visitor = f"CASE WHEN id % {EVENTS_A_VISITOR} IN (5, 6) THEN 0 ELSE {visitor} END"
    rows = duckdb.sql(f"""
        SELECT {columns} FROM (
          SELECT *, nth < {DECISIONS} AS decides, (hash(visitor) % {EXPERIMENTS} + nth * 5) % {EXPERIMENTS} AS experiment,
            ['view', 'view', 'view', 'view', 'cart', 'cart', 'purchase', 'search', 'login', 'login'][1 + (hash(id, 3) % 10)::INT]
              AS name,
            TIMESTAMPTZ '2026-11-01 00:00:00+00' + to_milliseconds(hash(id // {EVENTS_A_VISITOR}, 4) % 72000000
              + nth * (hash(id // {EVENTS_A_VISITOR}, 5) % 600000)) AS happens
          FROM (
            SELECT *, id % {EVENTS_A_VISITOR} AS nth, {visitor} AS visitor
            FROM (SELECT CASE WHEN i % 100 = 99 THEN i - 1 ELSE i END AS id FROM range({count}) AS t(i)))
        )""")
    for batch in rows.to_arrow_reader(1_000_000):
        table = pa.Table.from_batches([batch]).cast(schema)
        write_deltalake(
            url, table, mode="append", partition_by=list(PARTITIONED_BY),
            writer_properties=WriterProperties(compression="SNAPPY"),
        )  # fmt: skip


def duckdb_moments(url: str) -> list[dict[str, Any]]:
    """Visitors, total and the second moments of each metric by experiment and variation, from the same Parquet files."""
    made = []
    for n, metric in enumerate(MEASURES.values()):
        fits = f"event_name = '{metric['event']}'"
        if "where" in metric:
            fits += " AND tags['category'] = 'shoes'"
        if "window_hours" in metric:
            fits += " AND epoch_ms(event_time) - epoch_ms(exposed_at) <= 1800000"
        value = "revenue" if "value" in metric else "1"
        total = f"coalesce(sum(CASE WHEN {fits} THEN {value} END), 0)::DOUBLE"
        made.append((f"({total} > 0)::INT::DOUBLE" if metric["kind"] == "conversion" else total) + f" AS m{n}")
    names = list(MEASURES)
    capped = names.index("capped_revenue")
    seen = [f"m{n}" for n in range(len(MEASURES)) if n != capped]
    moments_of = [
        f"sum(m{n}) AS total_{name}, avg(m{n}) AS mean_{name}, var_samp(m{n}) AS var_{name}"
        for n, name in enumerate(names)
    ]
    for name, ratio in RATIOS.items():
        top, bottom = (names.index(ratio[part]) for part in ("numerator", "denominator"))
        moments_of.append(f"covar_samp(m{top}, m{bottom}) AS cov_{name}")
    rows = duckdb.sql(
        f"""
        WITH events AS (
          SELECT visitor_id, event_time, event_type, event_name, experiment_id, variation_id, revenue, tags
          FROM delta_files QUALIFY row_number() OVER (
            PARTITION BY visitor_id, uuid, coalesce(experiment_id, '') ORDER BY event_time, coalesce(variation_id, '')) = 1),
        exposed AS (
          SELECT visitor_id, experiment_id, min(event_time) AS exposed_at, arg_min(variation_id, event_time) AS variation_id
          FROM events WHERE event_type = 'decision' GROUP BY ALL),
        visitors AS (
          SELECT x.experiment_id, x.variation_id, x.visitor_id, {", ".join(made)}
          FROM exposed x LEFT JOIN events e ON e.visitor_id = x.visitor_id AND e.event_type <> 'decision'
            AND e.event_time >= x.exposed_at
          GROUP BY ALL),
        limits AS (
          SELECT experiment_id, quantile_cont(m{capped}, 0.99) AS top FROM visitors GROUP BY ALL),
        capped AS (
          SELECT experiment_id, variation_id, {", ".join(seen)}, least(m{capped}, top) AS m{capped}
          FROM visitors JOIN limits USING (experiment_id))
        SELECT experiment_id, variation_id, count(*) AS visitors, {", ".join(moments_of)} FROM capped GROUP BY ALL
    """.replace("delta_files", f"read_parquet({DeltaTable(url).file_uris()}, hive_partitioning = true)")
    )
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]


def lode_moments(spark: Session, files: str, analysis: Analysis) -> list[dict[str, Any]]:
    since, until = day_bounds(DAY, analysis.time_zone)
    with prepared(
        read_events(spark, f"file:{files}", DeltaTable(files).version(), since, until), [DAY], analysis
    ) as frames:
        return [row.asDict() for row in moments(frames.visitors, analysis).collect()]


def assert_equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Visitors and totals exactly, the rest but for the order of the additions."""
    found = {row["variation_id"]: row for row in ours}
    assert len(found) == len(theirs) == 2 * EXPERIMENTS
    for row in theirs:
        own = found[row["variation_id"]]
        pairs = [(own["visitors"], row["visitors"])]
        for name in MEASURES:
            pairs.append((own[f"{name}.to_date.total"], row[f"total_{name}"]))
            pairs.append((own[f"{name}.to_date.var.value"], row[f"var_{name}"]))
        pairs += [(own[f"{name}.to_date.cov.denominator.value"], row[f"cov_{name}"]) for name in RATIOS]
        assert all(abs(a - b) <= 1e-6 * max(1, abs(b)) for a, b in pairs), (row["variation_id"], pairs)


def local(folder: Path) -> Config:
    """A deployment whose tables are in a folder; nothing else of it is used."""
    return Config.model_validate({
        "kafka": {"bootstrap_servers": "localhost:1"},
        "s3": {"bucket": "none", "access_key": "none", "secret_key": "none"},
        "hdfs": {"url": f"file:{folder}"},  # Hadoop's own spelling: Delta refuses another
    })  # fmt: skip


def run(folder: Path, console: Console) -> None:
    """Needs Spark's arguments in the environment, or a session that runs."""
    config = local(folder)
    spark = session("bench analysis")
    table = Table(title=f"Daily analysis, {EXPERIMENTS} experiments, {len(MEASURES | RATIOS)} metrics, a funnel")
    for name in ("what", "events", "s", "events/s", "peak MB"):
        table.add_column(name, justify="left" if name == "what" else "right")

    def measured(what: str, count: int, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        with Peak() as peak:
            result = work()
        seconds = time.monotonic() - started
        console.print(f"{what}, {count:,} events: {seconds:.1f} s")  # an hour's bench that fails has said something
        table.add_row(what, f"{count:,}", f"{seconds:.1f}", f"{count / seconds:,.0f}", f"{peak.mb:,.0f}")
        return result

    sizes: Mapping[str, tuple[int, bool]] = {
        "warm": (EVENTS // 100, False), "tenth": (EVENTS // 10, False), "whole": (EVENTS, False), "skewed": (EVENTS, True),
    }  # fmt: skip
    for topic, (count, skewed) in sizes.items():
        files, analysis = events_path(config.hdfs, topic).removeprefix("file:"), declared(topic)
        write_events(files, count, skewed)
        title = ", one visitor has a tenth" if skewed else ""
        analyse = partial(analyze, config, topic, analysis, [DAY], spark)
        if topic == "warm":
            analyse()
            continue
        measured(f"lode analyze: all tables{title}", count, analyse)
        theirs = measured(f"DuckDB: the metrics' moments{title}", count, partial(duckdb_moments, files))
        ours = measured(f"Lode: the metrics' moments{title}", count, partial(lode_moments, spark, files, analysis))
        assert_equal(ours, theirs)
    console.print(table)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        spark_as_of(local(Path(folder)), "analyze.py")
        run(Path(folder), Console())


if __name__ == "__main__":
    main()
