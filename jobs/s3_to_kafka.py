"""S3 -> Kafka: replays a span of a topic's archive, exactly once.

lode replay kafka events --since 2026-11-02 --until 2026-11-03                        # plans and prints
lode replay kafka events --since 2026-11-02 --until 2026-11-03 --execute 0f1e2d3c4b5a6978
"""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.errors import DataMissing, TargetRefuses
from pipeline_lib.io.spark import map_units, session
from pipeline_lib.job import AsJson, ConfigPath, TopicName, print_result, run
from pipeline_lib.replay_run import ReplayRequest, check_entry, execute_replay, plan_replay, summary
from pipeline_lib.timespan import TimeSpan

By = StrEnum("By", ["timestamp", "event_time"])
Timestamps = StrEnum("Timestamps", ["original", "now"])


def main(
    topic: TopicName,
    since: Annotated[str, typer.Option(help="Start of the span (inclusive), UTC.")],
    until: Annotated[str, typer.Option(help="End of the span (exclusive), UTC.")],
    by: Annotated[By, typer.Option(help="The record's timestamp, or the time of any event in it.")] = By.timestamp,
    partition: Annotated[list[int] | None, typer.Option(help="Only this partition; can be repeated.")] = None,
    to: Annotated[str, typer.Option(help="The target topic; default: the same.")] = "",
    timestamps: Annotated[Timestamps, typer.Option(help="`now` keeps the original in a header.")] = Timestamps.original,
    topic_id: Annotated[str | None, typer.Option(help="Which topic of this name, where it was recreated.")] = None,
    execute: Annotated[str | None, typer.Option(metavar="DIGEST", help="Carry out the plan with this digest.")] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out corrupt segments and list them.")
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Replay a span of a topic's archive to Kafka: plans and prints; with --execute DIGEST does it and verifies."""
    deployment = load_config(config)
    span = TimeSpan.parse(since, until)
    request = ReplayRequest(topic, span, by.value, tuple(partition or ()), to, timestamps.value, topic_id)  # type: ignore[arg-type]
    if execute is None:
        plan, problems = plan_replay(deployment, request)
        print_result(summary(plan, problems), as_json)
        if problems:
            raise TargetRefuses("\n".join(problems))
        return
    spark = session(f"lode replay kafka {topic}")
    entry = execute_replay(
        deployment, request, execute, skip_corrupt, lambda work, units: map_units(spark, work, units)
    )
    print_result(
        {name: value for name, value in entry.items() if name not in ("plan", "format", "target_offsets")}, as_json
    )
    check_entry(entry)
    if entry["corrupt"]:
        raise DataMissing(f"corrupt segments were left out: {', '.join(entry['corrupt'])}")


if __name__ == "__main__":
    run(main)
