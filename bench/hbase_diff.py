"""The diff of two tables beside plain happybase scans of both."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import happybase
from rich.console import Console

from bench.hbase_java import load
from pipeline_lib.config import Config
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.diff_run import diff, open_comparison, span_ms
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.topics import load_topic

ROWS = int(os.environ.get("BENCH_DIFF_ROWS", 5_000_000))
COLUMNS, START, ROW_BYTES = 2, 1_780_000_000_000, 90
TOML = """name = "bench-diff"
codec = "json"
id_field = "id"
[event_time]
field = "at"
[fields]
id = "string"
at = "bigint"
[hbase]
key = ["id"]
[hbase.versions.v1]
table = "bench_diff"
"""


def run(config: Config, measured: Callable[[str, Callable[[], Any], int, int], Any], console: Console) -> None:
    (config.topics / "bench-diff.toml").write_text(TOML)
    topic = load_topic(config.topics, "bench-diff")
    mapping = mapping_of(topic)
    for name in ("prod", "loki"):
        with open_cluster(config, name) as cluster:
            cluster.create_table("bench_diff", mapping.family, mapping.salt_buckets)
            load(cluster.settings, "bench_diff", mapping.family, mapping.salt_buckets, ROWS, COLUMNS, START)
    with open_cluster(config, "loki") as loki:  # one row of millions that has to be found
        key = next(loki.scan("bench_diff"))[0]
        loki.put("bench_diff", [(key, {f"{mapping.family}:field_0".encode(): b"other"})], START + 1)
    measured(f"limit: plain scans of two tables of {ROWS:,}", lambda: _scan_both(config), 2 * ROWS, ROW_BYTES)
    comparison = open_comparison(config, topic, "v1", ("prod", "loki"), *span_ms(None, None))
    report = measured(
        f"diff of two tables of {ROWS:,}", lambda: diff(comparison, spark_runner("bench")), 2 * ROWS, ROW_BYTES
    )
    console.print(f"diff: {report.as_dict()}")


def _scan_both(config: Config) -> int:
    """Both at once, a thread each: the servers do not wait for one another, as they do not in the diff."""
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda name: _scan(config, name), ("prod", "loki")))


def _scan(config: Config, name: str) -> int:
    host, port = getattr(config.hbase, name).thrift.split(":")
    return sum(1 for _ in happybase.Connection(host, int(port)).table("bench_diff").scan(batch_size=1000))
