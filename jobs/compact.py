"""Events table -> itself: the small files of some days are written into few; no row changes.

lode compact events --since 2026-11-01 --until 2026-11-03
"""

from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.datasets import events_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.events_table import EventsTable
from pipeline_lib.io.spark import session
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.output import print_result
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import load_topic

Since = Annotated[str, typer.Option(help="First day of event time, UTC.")]
Until = Annotated[str, typer.Option(help="The day after the last one.")]


def main(topic: TopicName, since: Since, until: Until, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Rewrite the many small files of some landed days as few; landing may go on meanwhile."""
    deployment = load_config(config)
    load_topic(deployment.topics, topic)
    days = TimeSpan.parse(since, until).whole_days()
    table = EventsTable(session(f"lode compact {topic}"), events_path(deployment.hdfs, topic))
    if not table.exists:
        raise ConfigError(f"nothing was landed yet: there is no table {table.path}; run `lode land {topic}` first")
    before, after = table.compact(*days)
    print_result({"topic": topic, "files_before": before, "files_after": after}, as_json)


if __name__ == "__main__":
    run(main)
