"""What the commands about Druid share, and those that need no Spark."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.druid.rollback import execute_rollback, plan_rollback
from pipeline_lib.druid.run import Loaded, summary
from pipeline_lib.druid.sources import Source, all_sources, druid_settings, find_source
from pipeline_lib.druid.spec import retention_rules
from pipeline_lib.druid.status import apply_rules, chunk_states, compact_chunks
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.druid import Druid
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


def status(
    datasource: Annotated[str | None, typer.Argument(help="Only this datasource; default: all declared ones.")] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show each chunk in Druid beside its table: rows, segments, whether it changed since and needs compaction."""
    deployment = load_config(config)
    sources = [find_source(deployment, datasource)] if datasource else list(all_sources(deployment))
    found = {source.name: chunk_states(deployment, source) for source in sources}
    if as_json:
        print_result({name: list(map(asdict, chunks)) for name, chunks in found.items()}, as_json)
        return
    for name, chunks in found.items():
        rows = [[c.chunk, c.state, f"{c.rows:,}", f"{c.source_rows:,}", str(c.segments), f"{c.bytes:,}",
                 "yes" if c.compact else ""] for c in chunks]  # fmt: skip
        titles = ["chunk", "state", "rows", "in the table", "segments", "bytes", "compact"]
        print_rows(name, titles, rows, right=titles[2:6])


def compact(
    datasource: DatasourceName,
    since: Since = None,
    until: Until = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Rewrite the chunks of a span that have too many small segments, and prove that queries find the same rows."""
    deployment = load_config(config)
    source = find_source(deployment, datasource)
    done = compact_chunks(deployment, source, required_span(since, until))
    print_result(
        {"datasource": source.name, "compacted": len(done), "chunks": ", ".join(done) or "none needs it"}, as_json
    )


def rules(
    datasource: DatasourceName, execute: Execute = None, config: ConfigPath = None, as_json: AsJson = False
) -> None:
    """Show Druid's retention rules beside those that `keep_days` declares; with --execute DIGEST make them these."""
    deployment = load_config(config)
    source = find_source(deployment, datasource)
    declared = retention_rules(source.declared)
    now = Druid(druid_settings(deployment)).rules(source.name)
    digest = hashlib.sha256(json.dumps([source.name, now, declared], sort_keys=True).encode()).hexdigest()[:16]
    if execute:
        apply_rules(deployment, source, declared, digest, execute)
    values = {
        "datasource": source.name,
        "in_druid": now,
        "declared": declared,
        "digest": digest,
        "executed": bool(execute),
    }
    print_result(values if as_json else {name: str(value) for name, value in values.items()}, as_json)
