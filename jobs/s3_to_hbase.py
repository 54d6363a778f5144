"""S3 -> HBase: replays the rows of a span of a topic's archive to Prod and Loki; as often as one likes.

lode replay hbase events --since 2026-11-02 --until 2026-11-03                        # plans and prints
lode replay hbase events --since 2026-11-02 --until 2026-11-03 --execute 0f1e2d3c4b5a6978
"""

from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.replay.hbase import HBaseSink
from pipeline_lib.replay.options import By, Execute, ReplaySince, ReplayUntil, SkipCorrupt, TopicId, replay
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.timespan import TimeSpan

Clusters = Annotated[list[str] | None, typer.Option("--cluster", help="`prod` or `loki`; default: both.")]
Version = Annotated[str, typer.Option(help="Which of the topic's declared versions.")]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="Only rows whose first key field is this; can be repeated.")
]
ClearSpan = Annotated[
    bool, typer.Option("--clear-span", help="First remove rows of the span that archive and Kafka do not have.")
]
ReadBack = Annotated[float, typer.Option(min=0, max=1, help="Share of the written rows to read back and compare.")]


def main(
    topic: TopicName,
    since: ReplaySince,
    until: ReplayUntil,
    by: By = "timestamp",
    cluster: Clusters = None,
    version: Version = "v1",
    ids: Ids = None,
    topic_id: TopicId = None,
    clear_span: ClearSpan = False,
    read_back: ReadBack = 1.0,
    execute: Execute = None,
    skip_corrupt: SkipCorrupt = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Replay a span of a topic's archive to HBase: plans and prints; with --execute DIGEST does it and verifies."""
    deployment = load_config(config)
    request = ReplayRequest(topic, TimeSpan.parse(since, until), by, topic_id=topic_id)
    runner = spark_runner(f"lode replay hbase {topic}")
    sink = HBaseSink(deployment, runner, tuple(cluster or ()), version, tuple(ids or ()), clear_span, read_back)
    replay(deployment, request, sink, execute, skip_corrupt, as_json)


if __name__ == "__main__":
    run(main)
