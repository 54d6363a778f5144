"""What the commands about Druid share, and those that need no Spark."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.druid.rollback import execute_rollback, plan_rollback
from pipeline_lib.druid.run import Loaded, summary
from pipeline_lib.druid.sources import Source, find_source
from pipeline_lib.errors import ConfigError
from pipeline_lib.job import AsJson, ConfigPath
from pipeline_lib.output import print_result, print_rows
from pipeline_lib.timespan import TimeSpan

DatasourceName = Annotated[str, typer.Argument(help="A datasource that a topic or an analysis declares.")]
Since = Annotated[str | None, typer.Option(help="First day or hour (inclusive), UTC.")]
Until = Annotated[str | None, typer.Option(help="Where to stop (exclusive), UTC.")]
Execute = Annotated[str | None, typer.Option(metavar="DIGEST", help="Carry out the plan with this digest.")]


def optional_span(since: str | None, until: str | None) -> TimeSpan | None:
    """Raises ConfigError where only one end is given."""
    if bool(since) != bool(until):
        raise ConfigError("a span has both ends: give --since and --until")
    return TimeSpan.parse(since, until) if since and until else None


def required_span(since: str | None, until: str | None) -> TimeSpan:
    span = optional_span(since, until)
    if span is None:
        raise ConfigError("name the span with --since and --until")
    return span


def print_loaded(source: Source, done: Sequence[Loaded], as_json: bool) -> None:
    found = summary(source, done)
    if as_json:
        print_result(found, as_json)
        return
    if not done:
        print(f"{source.name}: nothing to do: Druid serves what the table has")
    rows = [[chunk.chunk, chunk.outcome, f"{chunk.rows:,}", chunk.error or chunk.task] for chunk in done]
    print_rows(f"{source.name}: {found['rows']:,} rows", ["chunk", "outcome", "rows", "task"], rows, right=["rows"])


def rollback(
    datasource: DatasourceName,
    since: Since = None,
    until: Until = None,
    execute: Execute = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show the version of each chunk that was served before; with --execute DIGEST go back to it."""
    deployment = load_config(config)
    source = find_source(deployment, datasource)
    plan = plan_rollback(deployment, source, required_span(since, until))
    if execute and execute != plan.digest:
        raise ConfigError(f"--execute {execute}: the plan is now {plan.digest}; look at it again before it is executed")
    if execute:
        execute_rollback(deployment, source, plan)
    if as_json:
        print_result(plan.as_dict() | {"executed": bool(execute)}, as_json)
        return
    rows = [[step.chunk, step.from_version, step.to_version, str(step.rows)] for step in plan.steps]
    title = "Rolled back" if execute else f"Would roll back; carry out with --execute {plan.digest}"
    print_rows(title, ["chunk", "from", "to", "rows"], rows, right=["rows"])
