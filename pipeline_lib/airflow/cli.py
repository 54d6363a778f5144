"""`lode airflow`: the local Airflow from the command line."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline_lib.airflow.connection import as_json, spark_connection
from pipeline_lib.airflow.local import LocalAirflow
from pipeline_lib.config import config_path, load_config
from pipeline_lib.job import ConfigPath

app = typer.Typer(help="Start and stop a local Airflow that runs Lode's DAGs.", no_args_is_help=True)


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(envvar="LODE_AIRFLOW_HOME", help="Folder of Airflow's database, logs and state.")
    ] = Path(".lode/airflow"),
) -> None:
    """Start and stop a local Airflow that runs Lode's DAGs."""
    context.obj = LocalAirflow(home)


@app.command()
def up(context: typer.Context, config: ConfigPath = None) -> None:
    """Start Airflow on this machine for a deployment, wait until it serves, and print its address."""
    typer.echo(_airflow(context).up(_connection(config)))


@app.command()
def down(context: typer.Context) -> None:
    """Stop Airflow and the tasks that it runs; what it knows stays."""
    _airflow(context).down()


@app.command()
def status(context: typer.Context) -> None:
    """Tell of each of Airflow's processes whether it is up."""
    table = Table("process", "state", "pid", "MB", "log", box=None)
    for each in _airflow(context).status():
        table.add_row(each.name, each.state, str(each.pid or "-"), str(each.memory_mb or "-"), each.log)
    Console(width=None if sys.stdout.isatty() else 1_000).print(table)
    if address := _airflow(context).address():
        typer.echo(address)


@app.command()
def connection(config: ConfigPath = None) -> None:
    """Print the connection spark_lode of a deployment as JSON, for `airflow connections add spark_lode --conn-json`."""
    typer.echo(_connection(config))


def _connection(config: Path | None) -> str:
    deployment = load_config(config)
    return as_json(spark_connection(deployment, config_path(config), deployment.stack))


def _airflow(context: typer.Context) -> LocalAirflow:
    airflow = context.obj
    assert isinstance(airflow, LocalAirflow)
    return airflow
