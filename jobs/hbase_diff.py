"""Prod, Loki, S3 archive -> report: compares the rows of a topic's table between two of them.

lode hbase diff events
lode hbase diff events --left archive --right loki --since 2026-11-01 --until 2026-11-02
"""

from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.hbase.diff_run import diff, open_comparison, span_ms
from pipeline_lib.hbase.sides import SideName
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.output import print_result, print_rows
from pipeline_lib.topics import load_topic

Left = Annotated[SideName, typer.Option(help="One side.")]
Right = Annotated[SideName, typer.Option(help="The other side.")]
Version = Annotated[str, typer.Option(help="The version of the table's schema.")]
Since = Annotated[str | None, typer.Option(help="Events of this time on; default: all.")]
Until = Annotated[
    str | None, typer.Option(help="Events before this time; the newest five minutes are left out anyway.")
]


def main(
    topic: TopicName,
    left: Left = "prod",
    right: Right = "loki",
    version: Version = "v1",
    since: Since = None,
    until: Until = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Compare the rows of a topic's table between two of Prod, Loki and the archive."""
    deployment = load_config(config)
    declared = load_topic(deployment.topics, topic)
    comparison = open_comparison(deployment, declared, version, (left, right), *span_ms(since, until))
    report = diff(comparison, spark_runner(f"lode hbase diff {topic}"))
    found = report.differences
    if as_json:
        print_result({**comparison.as_dict(), **report.as_dict(), "examples": found.examples}, as_json)
    else:
        print_result({**comparison.as_dict(), **report.as_dict()}, as_json)
        print_rows("Differences, some of each kind", ["difference", "event time", "id"], found.examples)
    if found.rows:
        raise VerificationFailed(f"table {comparison.table}: {found.rows:,} rows differ between {left} and {right}")


if __name__ == "__main__":
    run(main)
