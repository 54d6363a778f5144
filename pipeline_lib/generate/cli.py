"""`lode generate`: writes generated traffic to a topic, and what is true about it to a file."""

import time
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.errors import TargetRefuses
from pipeline_lib.generate.settings import TrafficSettings
from pipeline_lib.generate.traffic import generate
from pipeline_lib.generate.truth import Truth
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_produce import Writer
from pipeline_lib.job import AsJson, ConfigPath, TopicName
from pipeline_lib.output import print_result
from pipeline_lib.topics import load_topic

Share = Annotated[float, typer.Option(min=0, max=1)]
DEFAULT = TrafficSettings()


def main(
    topic: TopicName,
    visitors_per_day: Annotated[int, typer.Option(min=1)] = DEFAULT.visitors_per_day,
    days: Annotated[int, typer.Option(min=1)] = 3,
    since: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The first event day.")] = datetime(2026, 11, 1),
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = DEFAULT.seed,
    duplicate_share: Share = DEFAULT.duplicate_share,
    late_share: Share = DEFAULT.late_share,
    malformed_share: Share = DEFAULT.malformed_share,
    bot_share: Share = DEFAULT.bot_share,
    partitions: Annotated[int, typer.Option(min=1, help="Of the topic, where it has to be made.")] = 4,
    truth: Annotated[Path | None, typer.Option(help="Where to write counts and true effects, as JSON.")] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Generate experiment traffic of known truth: visitors bucketed by the Optimizely SDK, with duplicates, late
    events, malformed bodies and bots."""
    deployment = load_config(config)
    declared = load_topic(deployment.topics, topic)
    settings = TrafficSettings(
        visitors_per_day, days, date(since.year, since.month, since.day), seed,
        duplicate_share, late_share, malformed_share, bot_share,
    )  # fmt: skip
    with Kafka(deployment.kafka) as kafka:
        _prepare_topic(kafka, declared.name, partitions, settings)
    writer, known, started = Writer(deployment.kafka), Truth(settings), time.monotonic()
    for record in generate(settings, known):
        writer.write(declared.name, record.key, record.value, record.timestamp_ms)
    writer.flush()
    seconds = time.monotonic() - started
    if truth:
        truth.write_bytes(known.to_json())
    values = {"topic": topic, "records": known.records, "events": known.events, "seconds": round(seconds, 1)}
    print_result(values | {"events a second": round(known.events / seconds)}, as_json)


def _prepare_topic(kafka: Kafka, topic: str, partitions: int, settings: TrafficSettings) -> None:
    """Makes the topic where there is none; an existing one must not delete records as old as the first event day."""
    if topic not in kafka.topics():
        kafka.create_topic(topic, partitions, {"retention.ms": "-1"})
        return
    retention = int(kafka.topic_settings(topic)["retention.ms"])
    age = int(time.time() * 1000) - settings.since_ms
    if 0 <= retention < age:
        raise TargetRefuses(
            f"{topic}: retention.ms={retention} would delete events of {settings.since} within minutes: set it to -1"
        )
