"""HDFS -> Druid: loads a table's days into its datasource, proves each, and takes back what it cannot prove.

lode ingest druid events --since 2026-11-01 --until 2026-11-03
spark-submit jobs/hdfs_to_druid.py experiments_traffic --changed
"""

from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.druid.cli import DatasourceName, Since, Until, optional_span, print_loaded
from pipeline_lib.druid.run import ingest
from pipeline_lib.druid.sources import find_source
from pipeline_lib.errors import ConfigError
from pipeline_lib.job import AsJson, ConfigPath, run

Changed = Annotated[
    bool, typer.Option("--changed", help="Only what the table has otherwise than Druid; without a span: anywhere.")
]
AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty", help="Empty in Druid what the table has nothing of (any more).")
]


def main(
    datasource: DatasourceName,
    since: Since = None,
    until: Until = None,
    changed: Changed = False,
    allow_empty: AllowEmpty = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Load a span of a table into Druid, or what changed, and prove that queries find exactly its rows."""
    deployment = load_config(config)
    source = find_source(deployment, datasource)
    span = optional_span(since, until)
    if not changed and span is None:
        raise ConfigError("name the span with --since and --until, or let --changed find what to load")
    done, error = ingest(deployment, source, span, changed, allow_empty)
    print_loaded(source, done, as_json)
    if error:
        raise error


if __name__ == "__main__":
    run(main)
