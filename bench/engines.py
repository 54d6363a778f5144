"""How far work spreads over executors, and what a spike of traffic takes: `python -m bench.engines`.

- Units: how many tasks a batch is cut into, and by that the most executors that it can keep busy.
- One and two executors of one core on a standalone cluster: the archive and landing of the same topic. The servers, the
  driver and the executors share this machine's cores, so that two executors cannot give twice here.
- A backlog of three times the hourly volume, by the same command as every hour: seconds and the most memory.

BENCH_RECORDS (default 600,000, of 1 KB) is the volume of the executors' runs; an hour of the spike is a third of it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.__main__ import SIZE, Peak, write_topic
from pipeline_lib.batches.progress import plan_batch
from pipeline_lib.config import BatchSettings, Config, load_config
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.stack.stack import Stack
from pipeline_lib.topics import Topic

RECORDS, PARTITIONS = int(os.environ.get("BENCH_RECORDS", 600_000)), 8
HOUR = RECORDS // 3


def units(partitions: int, records: int) -> int:
    """Tasks of one batch over a backlog of so many records, evenly spread."""
    settings = BatchSettings()
    available = dict.fromkeys(range(partitions), (0, records // partitions))
    return len(plan_batch({}, available, settings.max_records).units(settings.unit_records))


def show_units(console: Console) -> None:
    table = Table(title="Tasks of one batch (max_records 5,000,000, unit_records 250,000)")
    for name in ("partitions", "backlog", "tasks"):
        table.add_column(name, justify="right")
    for partitions, records in ((4, 1_000_000), (4, 20_000_000), (64, 20_000_000), (1000, 20_000_000)):
        table.add_row(f"{partitions:,}", f"{records:,}", f"{units(partitions, records):,}")
    console.print(table)


def lode(path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """What a command printed, and its log."""
    line = [sys.executable, "-m", "pipeline_lib", *arguments, "--json", "--config", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lode {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def deployed(folder: Path, stack: Stack, name: str, topic: str, spark: str) -> Path:
    """A deployment with datasets of its own."""
    topics = folder / name / "topics"
    topics.mkdir(parents=True)
    (topics / f"{topic}.toml").write_text(f'name = "{topic}"\ncodec = "raw"\n')
    path = folder / name / "lode.toml"
    path.write_text(
        f'stack = "{stack.home}"\ntopics = "{topics}"\n[s3]\nbucket = "bench"\nprefix = "{name}/"\n'
        f'[hdfs]\nroot = "/{name}"\n[batch]\nunit_records = {HOUR // PARTITIONS // 2}\n[spark]\n{spark}'
    )
    return path


def seconds_after_the_first_batch(log: str) -> tuple[float, int]:
    """From the first commit to the last, and the offsets between: sessions, workers and compiled code are then warm."""
    times = [datetime.fromisoformat(at) for at in re.findall(r"time=(\S+) event=committed", log)]
    offsets = [int(found) for found in re.findall(r"event=planned .*offsets=(\d+)", log)]
    return (times[-1] - times[0]).total_seconds(), sum(offsets[1:])


def executors(folder: Path, stack: Stack, topic: str, console: Console) -> None:
    table = Table(
        title=f"{RECORDS:,} records of {SIZE} B, {PARTITIONS} partitions, standalone, {os.cpu_count()} cores in all"
    )
    for name in ("job", "executors", "records/s", "times"):
        table.add_column(name, justify="left" if name == "job" else "right")
    master = stack.endpoints()["spark.master"]
    for job in ("archive", "land"):
        rates: list[float] = []
        for count in (1, 2):
            spark = f'master = "{master}"\nexecutors = {count}\nexecutor_memory = "800m"\n'
            path = deployed(folder, stack, f"{job}-{count}", topic, spark)
            _, log = lode(path, job, topic, "--max-records", str(HOUR // 2))
            spent, offsets = seconds_after_the_first_batch(log)
            rates.append(offsets / spent)
            table.add_row(job, str(count), f"{rates[-1]:,.0f}", f"{rates[-1] / rates[0]:.2f}")
    console.print(table)


def spike(folder: Path, stack: Stack, config: Config, console: Console) -> None:
    """An ordinary hour, and then a run that finds three hours' volume; both by the schedule's own command."""
    table = Table(title=f"A spike: an hour is {HOUR:,} records of {SIZE} B, batches of at most that; local[2]")
    for name in ("job", "records", "batches", "s", "peak MB"):
        table.add_column(name, justify="left" if name == "job" else "right")
    topic = Topic(name="spike", codec="raw")
    path = deployed(folder, stack, "spike", topic.name, "")
    with Kafka(config.kafka) as kafka:
        kafka.create_topic(topic.name, PARTITIONS, {"retention.ms": "-1"})
    for records in (HOUR, 3 * HOUR, HOUR):
        write_topic(config, topic, records)
        for job in ("archive", "land"):
            began = time.monotonic()
            with Peak() as peak:
                report, _ = lode(path, job, topic.name, "--max-records", str(HOUR))
            spent = time.monotonic() - began
            table.add_row(job, f"{records:,}", str(report["batches"]), f"{spent:.0f}", f"{peak.mb:,.0f}")
    console.print(table)


def main() -> None:
    console = Console()
    show_units(console)
    with tempfile.TemporaryDirectory() as name:
        folder, stack = Path(name), Stack(Path(name) / "stack")
        os.environ.pop("LODE_STACK_HOME", None)
        try:
            stack.up(["kafka", "hdfs", "s3"], also=["standalone"])
            topic = Topic(name="executors", codec="raw")
            config = load_config(deployed(folder, stack, "source", topic.name, ""))
            S3(config.s3).create_bucket()
            with Kafka(config.kafka) as kafka:
                kafka.create_topic(topic.name, PARTITIONS, {"retention.ms": "-1"})
            write_topic(config, topic, RECORDS)
            executors(folder, stack, topic.name, console)
            stack.down(["standalone"])
            spike(folder, stack, config, console)
        finally:
            stack.down()


if __name__ == "__main__":
    main()
