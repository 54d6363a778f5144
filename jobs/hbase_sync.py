"""Prod, Loki, S3 archive -> HBase: makes the rows of one side those of another, where they differ.

lode hbase sync events --from archive --to loki                              # plans and prints
lode hbase sync events --from archive --to loki --execute 0f1e2d3c4b5a6978
"""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.hbase.clusters import Cluster
from pipeline_lib.hbase.diff_run import open_comparison, span_ms
from pipeline_lib.hbase.sides import SideName
from pipeline_lib.hbase.sync import check_synced, plan_sync, sync
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.output import print_result
from pipeline_lib.topics import load_topic

Source = Annotated[SideName, typer.Option("--from", help="The side that is right.")]
Target = Annotated[Cluster, typer.Option("--to", help="The cluster to repair.")]
Delete = Annotated[bool, typer.Option("--delete", help="Delete rows that only the target has.")]
Execute = Annotated[str | None, typer.Option(metavar="DIGEST", help="Carry out the plan with this digest.")]
Version = Annotated[str, typer.Option(help="The version of the table's schema.")]
Since = Annotated[str | None, typer.Option(help="Events of this time on; default: all.")]
Until = Annotated[
    str | None, typer.Option(help="Events before this time; the newest five minutes are left out anyway.")
]


def main(
    topic: TopicName,
    source: Source,
    target: Target,
    version: Version = "v1",
    since: Since = None,
    until: Until = None,
    delete: Delete = False,
    execute: Execute = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Repair a topic's table from another cluster or the archive: plans and prints; with --execute DIGEST does it."""
    deployment = load_config(config)
    declared = load_topic(deployment.topics, topic)
    comparison = open_comparison(deployment, declared, version, (source, target), *span_ms(since, until))
    run_units = spark_runner(f"lode hbase sync {topic}")
    if execute is None:
        print_result({**comparison.as_dict(), **asdict(plan_sync(comparison, delete, run_units)[0])}, as_json)
        return
    done, after = sync(comparison, delete, execute, deployment.hbase, run_units)
    print_result({**comparison.as_dict(), **asdict(done)}, as_json)
    check_synced(comparison, after)


if __name__ == "__main__":
    run(main)
