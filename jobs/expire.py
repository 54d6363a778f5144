"""Events table -> itself: removes the days that are older than the topic's `keep_days`; the archive keeps them.

lode expire events
lode expire events --execute
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pipeline_lib.analysis.declaration import load_analyses
from pipeline_lib.analysis.expired import check_unneeded
from pipeline_lib.config import load_config
from pipeline_lib.datasets import events_path
from pipeline_lib.io.events_table import EventsTable
from pipeline_lib.io.spark import session
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.output import print_result
from pipeline_lib.topics import load_topic

Execute = Annotated[bool, typer.Option("--execute", help="Remove them; without it they are only counted.")]


def main(topic: TopicName, execute: Execute = False, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Count, or remove, landed days of event time that are older than the topic's `keep_days`."""
    deployment = load_config(config)
    keep_days = load_topic(deployment.topics, topic).keep_days
    if keep_days is None:
        print_result({"topic": topic, "days": 0, "note": "nothing to do: the topic declares no keep_days"}, as_json)
        return
    today = datetime.now(UTC).date()
    before = today - timedelta(days=keep_days)
    check_unneeded(topic, keep_days, load_analyses(deployment.analyses), today)
    table = EventsTable(session(f"lode expire {topic}"), events_path(deployment.hdfs, topic))
    rows = table.rows_before(before) if table.exists else {}
    if execute and rows:
        table.delete_before(before)
    found = {"topic": topic, "before": str(before), "days": len(rows), "rows": sum(rows.values()), "removed": execute}
    print_result(found, as_json)


if __name__ == "__main__":
    run(main)
