"""`lode demo`: the main job once, on real servers, with a table at the end whose counts must agree.

A stack of its own is started and wiped first, so that it can be stopped half-way and run again, and never touches
another. Two things are lost and brought back: the table of the one HBase cluster, and the topic. What the replays
brought back is compared here, apart from their own verification: Prod with Loki and with the archive, row for row; and
the digest of every record of the middle day, per partition and in order, before the topic was deleted and after.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from pipeline_lib.config import Config, load_config
from pipeline_lib.errors import LodeError
from pipeline_lib.hbase.clusters import CLUSTERS, mapping_of, open_cluster
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.job import ROOT
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.stack.stack import Stack
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import load_topic

TOPIC, DAYS = "events", 3
SPAN = TimeSpan.parse("2026-11-01", "2026-11-04")
VISITORS_A_DAY = 4000

console = Console(stderr=True)


def main() -> None:
    """Run the main job on a stack of its own: generate, land, archive, analyse, lose two stores, replay, compare."""
    home = Path(os.environ.get("LODE_DEMO_HOME", ".lode/demo"))
    os.environ["LODE_STACK_HOME"] = str(home)
    stack = Stack(home)
    started = time.monotonic()
    try:
        _step(1, "Starting Kafka, HDFS, S3, two HBase clusters and Druid on this machine")
        stack.reset()
        stack.up(["kafka", "hdfs", "s3", "hbase", "druid"])
        rows = _run(load_config(ROOT / "conf" / "local.toml"), home)
    finally:
        console.print("Stopping the servers")
        stack.down()
    _show(rows, time.monotonic() - started)
    if not all(row[3] for row in rows):
        raise LodeError("the counts do not agree")
    shutil.rmtree(home)


def _run(config: Config, home: Path) -> list[tuple[str, str, str, bool]]:
    S3(config.s3).create_bucket()
    truth_file = home / "truth.json"
    _step(2, f"Generating {DAYS} days of experiment traffic")
    options = ["--days", str(DAYS), "--visitors-per-day", str(VISITORS_A_DAY), "--since", f"{SPAN.since:%Y-%m-%d}"]
    generated = _lode("generate", TOPIC, *options, "--truth", str(truth_file))
    truth = json.loads(truth_file.read_text())
    refused = sum(truth["malformed"].values())
    _step(3, "Landing on HDFS")
    landed = _lode("land", TOPIC)
    _step(4, "Archiving on S3")
    archived = _lode("archive", TOPIC)
    _step(5, "Analysing the experiments")
    analyzed = _lode("analyze", "experiments", "--since", f"{SPAN.since:%Y-%m-%d}", "--until", f"{SPAN.until:%Y-%m-%d}")
    found = {(r["experiment"], r["variation"]): r for r in _lode("results")["results"]
             if (r["metric"], r["segment"]) == ("revenue_per_visitor", "all")}  # fmt: skip
    report = _lode("report", "experiments", "--out", str(home.with_name("report")))
    druid_rows = _load_druid()
    rows = _lose_and_restore_prod(config)
    day = list(SPAN.days())[1]
    with Kafka(config.kafka) as kafka:
        before = fingerprint(kafka, day)
        _step(10, "Losing the topic: it is deleted, and made again empty")
        partitions = len(kafka.describe(TOPIC).partitions)
        kafka.delete_topic(TOPIC)
        kafka.create_topic(TOPIC, partitions, {"retention.ms": "-1"})
        _step(11, f"Planning the replay of {day.since:%Y-%m-%d}")
        span = ["--since", f"{day.since:%Y-%m-%d}", "--until", f"{day.until:%Y-%m-%d}"]
        digest = _lode("replay", "kafka", TOPIC, *span)["digest"]
        _step(12, f"Executing the plan {digest}")
        replayed = _lode("replay", "kafka", TOPIC, *span, "--execute", digest)
        _step(13, "Comparing the topic with what it was, record for record")
        after = fingerprint(kafka, TimeSpan(SPAN.since - timedelta(days=9), SPAN.until + timedelta(days=9)))
    count = sum(records for records, _ in before.values())
    return [
        ("generated", f"{truth['records']:,} records, {truth['events']:,} events", _seconds(generated), True),
        (
            "landed on HDFS",
            f"{landed['events']:,} events, {landed['quarantined']:,} quarantined",
            _seconds(landed),
            (landed["events"], landed["quarantined"]) == (truth["events"], refused),
        ),
        (
            "archived on S3",
            f"{archived['records']:,} records, {archived['bytes'] / 1e6:.1f} MB",
            _seconds(archived),
            archived["records"] == truth["records"],
        ),
        (
            "analysed",
            f"{analyzed['results']:,} results, {analyzed['alarms']} SRM alarms",
            _seconds(analyzed),
            {key: (int(r["visitors"]), int(r["total"])) for key, r in found.items()} == _true_totals(truth),
        ),
        ("report", report["index"], _seconds(report), Path(report["index"]).is_file()),
        *druid_rows,
        *rows,
        (
            f"replayed {day.since:%Y-%m-%d}",
            f"{replayed['records']:,} of {count:,} records",
            _seconds(replayed),
            replayed["records"] == count > 0,
        ),
        ("equal, record for record", f"{len(before)} partitions, in order", "", before == after),
    ]


def _true_totals(truth: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    """Visitors and revenue (cents) of each variation as the generator counted them."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for cell in truth["cells"]:
        key = (cell["experiment_id"], cell["variation_id"])
        visitors, revenue = found.get(key, (0, 0))
        found[key] = visitors + cell["visitors"], revenue + cell["revenue"]
    return found


def _load_druid() -> list[tuple[str, str, str, bool]]:
    """Traffic and results in Druid; its top experiments are those that Spark counts, visitors within the sketch's bounds."""
    _step(6, "Loading Druid")
    span = ["--since", f"{SPAN.since:%Y-%m-%d}", "--until", f"{SPAN.until:%Y-%m-%d}"]
    traffic = _lode("ingest", "druid", "experiments_traffic", *span)
    results = _lode("ingest", "druid", "experiments_results", *span)
    counted = _lode("traffic", "experiments", *span)["top"]
    sound = ["--where", "quality=ok", "--where", "event_type=decision"]
    asked = _lode("query", "experiments_traffic", *sound, "--by", "experiment_id", "--metric", "visitors", *span)
    found = {row["experiment_id"]: row for row in asked["rows"]}
    shown = ", ".join(f"{row['experiment']} ({row['visitors']:,} visitors)" for row in counted)
    console.print(f"  top experiments: {shown}", highlight=False)
    agrees = found.keys() == {row["experiment_id"] for row in counted} and all(
        _agrees(row, found[row["experiment_id"]]) for row in counted
    )
    chunks = f"{traffic['loaded'] + results['loaded']} days, {traffic['rows'] + results['rows']:,} rows"
    return [
        ("loaded into Druid", chunks, f"{traffic['_seconds'] + results['_seconds']:.0f} s", not traffic["failed"]),
        ("top experiments by Druid", f"{len(found)}, as Spark counts them", "", agrees),
    ]


def _agrees(counted: dict[str, Any], sketched: dict[str, Any]) -> bool:
    low, high = sketched["visitors_low"], sketched["visitors_high"]
    return bool(sketched["events"] == counted["decisions"] and low <= counted["visitors"] <= high)


def _lose_and_restore_prod(config: Config) -> list[tuple[str, str, str, bool]]:
    _step(7, "Serving to HBase, Prod and Loki")
    served = _lode("serve", TOPIC)
    written = {name: values["v1"]["rows"] for name, values in served.items() if name in CLUSTERS}
    _step(8, "Losing Prod's table, and replaying it from S3")
    with open_cluster(config, "prod") as prod:
        prod.delete_table(mapping_of(load_topic(config.topics, TOPIC)).version("v1").table)
    span = ["--since", "2026-01-01", "--until", "2027-01-01", "--cluster", "prod"]
    digest = _lode("replay", "hbase", TOPIC, *span)["digest"]
    replayed = _lode("replay", "hbase", TOPIC, *span, "--execute", digest)
    _step(9, "Comparing Prod with Loki and with the archive, row for row")
    clusters = _lode("hbase", "diff", TOPIC)
    archive = _lode("hbase", "diff", TOPIC, "--left", "archive", "--right", "prod")
    compared = {values[side] for values in (clusters, archive) for side in ("left_rows", "right_rows")}
    return [
        ("served to HBase", f"{written['prod']:,} rows, twice", _seconds(served), len(set(written.values())) == 1),
        ("replayed to Prod", f"{replayed['records']:,} rows", _seconds(replayed), replayed["missing"] == 0),
        ("Prod = Loki = archive", f"{clusters['left_rows']:,} rows", _seconds(clusters), len(compared) == 1),
    ]


def fingerprint(kafka: Kafka, span: TimeSpan) -> dict[int, tuple[int, str]]:
    """Record count and SHA-256 of the records of a span in each partition of the topic, in order."""
    info = kafka.describe(TOPIC)
    found = {}
    for partition, (since, until) in kafka.offsets(info).items():
        count, digest = 0, hashlib.sha256()
        for batch in kafka.read(info, OffsetRange(partition, since, until), 8 << 20):
            times = pc.cast(batch.column("timestamp"), pa.int64())
            wanted = batch.filter(pc.and_(pc.greater_equal(times, span.since_ms), pc.less(times, span.until_ms)))
            for row in wanted.drop_columns(["offset"]).to_pylist():
                digest.update(repr(row).encode())
            count += wanted.num_rows
        found[partition] = (count, digest.hexdigest())
    return found


def _lode(*arguments: str) -> dict[str, Any]:
    """Runs a `lode` command as a user would and returns what it printed, with its duration."""
    console.print(f"  [dim]$ lode {' '.join(arguments)}[/dim]", highlight=False)
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "pipeline_lib",
        *arguments,
        "--json",
        "--config",
        str(ROOT / "conf" / "local.toml"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise LodeError(f"lode {arguments[0]} ended with {done.returncode}")
    return {**json.loads(done.stdout.splitlines()[-1]), "_seconds": time.monotonic() - started}


def _seconds(result: dict[str, Any]) -> str:
    return f"{result['_seconds']:.0f} s"


def _step(number: int, text: str) -> None:
    console.print(f"[bold]{number}/13[/bold] {text}", highlight=False)


def _show(rows: list[tuple[str, str, str, bool]], seconds: float) -> None:
    table = Table(title=f"lode demo, {seconds:.0f} s in all")
    for name in ("stage", "what", "time", "agrees"):
        table.add_column(name, justify="right" if name == "time" else "left")
    for stage, what, duration, agrees in rows:
        table.add_row(stage, what, duration, "yes" if agrees else "[bold red]NO[/bold red]")
    Console().print(table)
