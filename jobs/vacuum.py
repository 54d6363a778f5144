"""Archive and events table -> themselves: removes files that no commit names, as killed runs leave them.

lode vacuum events
lode vacuum events --older-than 48 --execute
"""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.io.spark import session
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.output import print_result, print_rows
from pipeline_lib.topics import load_topic
from pipeline_lib.vacuum import age_text, vacuum_archive, vacuum_events

OlderThan = Annotated[int, typer.Option(min=1, help="Hours; longer than any batch takes, or a running one loses.")]
Execute = Annotated[bool, typer.Option("--execute", help="Remove them; without it they are only listed.")]


def main(
    topic: TopicName,
    older_than: OlderThan = 24,
    execute: Execute = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """List or remove files of a topic's archive and events table that no commit names."""
    deployment = load_config(config)
    load_topic(deployment.topics, topic)
    now = datetime.now(UTC)
    archived = vacuum_archive(deployment, topic, timedelta(hours=older_than), execute, now)
    landed = vacuum_events(deployment, topic, older_than, execute, session(f"lode vacuum {topic}"))
    found = [*archived, *landed]
    summary = {"topic": topic, "removed": execute, "files": len(found), "bytes": sum(entry.bytes for entry in found)}
    if as_json:
        print_result(summary | {"archive": list(map(asdict, archived)), "events": list(map(asdict, landed))}, as_json)
        return
    print_result(summary, as_json)
    rows = [[entry.key, f"{entry.bytes:,}", age_text(entry.modified, now)] for entry in found]
    print_rows("Removed" if execute else "Would be removed", ["path", "bytes", "age"], rows, right=["bytes", "age"])


if __name__ == "__main__":
    run(main)
