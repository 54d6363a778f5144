"""S3 -> Kafka: replays a span of a topic's archive, exactly once.

lode replay kafka events --since 2026-11-02 --until 2026-11-03                        # plans and prints
lode replay kafka events --since 2026-11-02 --until 2026-11-03 --execute 0f1e2d3c4b5a6978
"""

from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.replay.kafka import KafkaSink
from pipeline_lib.replay.options import By, Execute, Partitions, ReplaySince, ReplayUntil, SkipCorrupt, TopicId, replay
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.preflight import Timestamps
from pipeline_lib.timespan import TimeSpan

To = Annotated[str, typer.Option(help="The target topic; default: the same.")]
TimestampsOption = Annotated[Timestamps, typer.Option(help="`now` keeps the original in a header.")]


def main(
    topic: TopicName,
    since: ReplaySince,
    until: ReplayUntil,
    by: By = "timestamp",
    partition: Partitions = None,
    to: To = "",
    timestamps: TimestampsOption = "original",
    topic_id: TopicId = None,
    execute: Execute = None,
    skip_corrupt: SkipCorrupt = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Replay a span of a topic's archive to Kafka: plans and prints; with --execute DIGEST does it and verifies."""
    deployment = load_config(config)
    request = ReplayRequest(topic, TimeSpan.parse(since, until), by, tuple(partition or ()), topic_id)
    sink = KafkaSink(deployment, spark_runner(f"lode replay kafka {topic}"), to, timestamps)
    replay(deployment, request, sink, execute, skip_corrupt, as_json)


if __name__ == "__main__":
    run(main)
