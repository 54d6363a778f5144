"""`lode stack`: the local servers from the command line."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline_lib.stack.catalog import SERVERS
from pipeline_lib.stack.stack import Stack, Status

app = typer.Typer(no_args_is_help=True)

Service = Annotated[str, typer.Argument(help=f"One of {', '.join(SERVERS)}.")]


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(envvar="LODE_STACK_HOME", help="Folder of the stack's data, logs and state.")
    ] = Path(".lode/stack"),
) -> None:
    """Start and stop the local servers: Kafka, HDFS, S3, HBase (Prod and Loki), Druid."""
    context.obj = Stack(home)


@app.command()
def up(
    context: typer.Context,
    services: Annotated[
        list[str] | None,
        typer.Argument(
            help="Servers, or the groups hdfs, hbase, druid, standalone, yarn. Without: all but the last two."
        ),
    ] = None,
    also: Annotated[list[str] | None, typer.Option("--with", help="Start these, too; can be repeated.")] = None,
) -> None:
    """Start servers with what they require, wait until they serve, and print their endpoints.

    LODE_STACK_JAVA_OPTIONS holds more options for each server's Java: with -XX:TieredStopAtLevel=1 they start in two
    thirds of the time, and bear less.
    """
    for name, address in _stack(context).up(services, also or ()).items():
        typer.echo(f"{name}={address}")


@app.command()
def down(
    context: typer.Context,
    services: Annotated[list[str] | None, typer.Argument(help="Servers or groups. All without.")] = None,
) -> None:
    """Stop servers; their data stay."""
    _stack(context).down(services)


@app.command()
def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell of every server whether it is up, with its process, ports and memory."""
    found = _stack(context).status()
    if as_json:
        endpoints = _stack(context).endpoints()
        typer.echo(json.dumps({"servers": [asdict(server) for server in found], "endpoints": endpoints}, indent=1))
        return
    table = Table("server", "state", "pid", "MB", "ports", "log", box=None)
    for server in found:
        ports = " ".join(f"{name}={port}" for name, port in server.ports.items())
        table.add_row(
            server.name, _in_words(server), _or_dash(server.pid), _or_dash(server.memory_mb), ports, server.log
        )
    # Into a pipe or a file, where there is no width to fit, each server stays one whole line.
    Console(width=None if sys.stdout.isatty() else 1_000).print(table)


@app.command()
def logs(
    context: typer.Context,
    service: Service,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many lines.")] = 100,
) -> None:
    """Print the end of a server's log."""
    for line in _stack(context).logs(service, lines):
        typer.echo(line)


@app.command()
def kill(context: typer.Context, service: Service) -> None:
    """End a server with SIGKILL, as a crash would."""
    _stack(context).kill(service)


@app.command()
def restart(context: typer.Context, service: Service) -> None:
    """Stop one server and start it again on its data."""
    _stack(context).restart(service)


@app.command()
def reset(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop all servers and remove their data."""
    stack = _stack(context)
    if not yes:
        typer.confirm(f"Remove all data of the servers in {stack.home}?", abort=True, err=True)
    stack.reset()


def _stack(context: typer.Context) -> Stack:
    stack = context.obj
    assert isinstance(stack, Stack)
    return stack


def _in_words(server: Status) -> str:
    if server.state != "died":
        return server.state
    ended = "" if server.exit_code is None else f" (exit code {server.exit_code})"
    return f"died{ended}: {server.last_line}"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
