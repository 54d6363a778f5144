"""A load into Druid from submit to queryable, beside the same task posted by hand.

The bare task is what a script does: post the spec, ask every second for its end, then every second for the rows. It
checks nothing. `python -m bench.druid` runs it alone; BENCH_DRUID_ROWS sets the size of the day.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import WriterProperties, write_deltalake
from rich.console import Console
from rich.table import Table

from pipeline_lib.config import Config, load_config
from pipeline_lib.druid.chunks import chunks_of
from pipeline_lib.druid.declaration import Datasource
from pipeline_lib.druid.ledger import Ledger
from pipeline_lib.druid.load import rows_served
from pipeline_lib.druid.run import load_chunk
from pipeline_lib.druid.sources import Source, druid_settings
from pipeline_lib.druid.spec import ingestion_task
from pipeline_lib.io.delta_files import live_files
from pipeline_lib.io.druid import Druid
from pipeline_lib.io.s3 import S3

ROWS, RUNS, DAY = int(os.environ.get("BENCH_DRUID_ROWS", 1_000_000)), 5, date(2026, 11, 1)
DECLARED = Datasource.model_validate(
    {
        "time": "event_time",
        "dimensions": ["experiment_id", "variation_id", "event_name"],
        "metrics": {"revenue": {"kind": "long_sum"}, "visitors": {"kind": "theta", "field": "visitor_id"}},
    }
)


def run(config: Config, console: Console) -> None:
    """Loads one day several times each way, in turn, and prints the medians."""
    S3(config.s3).create_bucket()
    url = f"{config.hdfs.url}/bench/{uuid.uuid4().hex}"
    properties = WriterProperties(compression="SNAPPY")
    write_deltalake(url, day_of_events(), partition_by=["date"], writer_properties=properties)
    bare, lode = [], []
    load_bare(config, url)  # the indexer's compiled code
    for _ in range(RUNS):
        bare.append(load_bare(config, url))
        lode.append(load_proved(config, url))
    table = Table(title=f"{ROWS:,} rows of a day into Druid, submit to queryable, median of {RUNS}")
    for name in ("what", "s", "rows/s"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for what, seconds in (("bare task, fixed waiting, unproved", bare), ("lode ingest druid, proved", lode)):
        median = statistics.median(seconds)
        table.add_row(what, f"{median:.1f}", f"{ROWS / median:,.0f}")
    console.print(table)
    console.print(f"bare {[round(s, 1) for s in bare]}, lode {[round(s, 1) for s in lode]}")


def day_of_events() -> pa.Table:
    """Experiments by the hour, as many visitors as a tenth of the rows."""
    random = np.random.default_rng(1)
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    at = int(start.timestamp() * 1e6) + random.integers(0, int(timedelta(days=1).total_seconds() * 1e6), ROWS)
    visitors = random.integers(0, ROWS // 10 + 1, ROWS)
    columns = {
        "event_time": pa.array(at, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "experiment_id": [f"e{n}" for n in visitors % 20],
        "variation_id": [f"v{n}" for n in visitors % 3],
        "event_name": [f"n{n}" for n in random.integers(0, 10, ROWS)],
        "visitor_id": [f"visitor-{n}" for n in visitors],
        "revenue": random.integers(0, 10_000, ROWS),
        "date": pa.array([DAY] * ROWS, pa.date32()),
    }
    return pa.table(columns)


def load_bare(config: Config, url: str) -> float:
    druid, name = Druid(druid_settings(config)), f"bare{uuid.uuid4().hex[:8]}"
    chunk = chunks_of(DECLARED, live_files(url)[1], None)[0]
    started = time.monotonic()
    druid.submit(ingestion_task(name, name, DECLARED, chunk, "parquet", [file.uri for file in chunk.files]))
    while (state := druid.task(name)) is None or state.status == "RUNNING":
        time.sleep(1)
    while rows_served(druid, name, chunk.interval) == 0:
        time.sleep(1)
    return time.monotonic() - started


def load_proved(config: Config, url: str) -> float:
    druid, name = Druid(druid_settings(config)), f"lode{uuid.uuid4().hex[:8]}"
    source = Source(name, url, DECLARED)
    started = time.monotonic()
    chunk = chunks_of(DECLARED, live_files(url)[1], None)[0]
    load_chunk(config, druid, Ledger(S3(config.s3), name), source, chunk, "parquet")
    return time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LODE_STACK_HOME"] = folder
        lode = [sys.executable, "-m", "pipeline_lib", "stack"]
        try:
            subprocess.run([*lode, "up", "hdfs", "s3", "druid", "kafka"], check=True, stdout=sys.stderr)
            run(load_config(Path("conf/local.toml")), Console())
        finally:
            subprocess.run([*lode, "down"], check=True)


if __name__ == "__main__":
    main()
