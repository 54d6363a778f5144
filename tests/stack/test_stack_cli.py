"""`lode stack` from the command line."""

import json
from pathlib import Path

from typer.testing import CliRunner

from pipeline_lib.errors import ConfigError
from pipeline_lib.stack.catalog import SERVERS
from pipeline_lib.stack.cli import app
from pipeline_lib.stack.stack import Stack

_run = CliRunner().invoke


def test_status_for_machines_names_every_server(tmp_path: Path) -> None:
    found = _run(app, ["--home", str(tmp_path), "status", "--json"])
    assert [server["name"] for server in json.loads(found.stdout)["servers"]] == list(SERVERS)


def test_status_keeps_one_line_a_server(stack: Stack) -> None:
    lines = _run(app, ["--home", str(stack.home), "status"]).stdout.splitlines()
    assert len(lines) == 1 + len(SERVERS)
    assert lines[1].split()[:2] == ["kafka", "up"]
    assert lines[1].rstrip().endswith("kafka.log")


def test_logs_prints_the_end(stack: Stack) -> None:
    printed = _run(app, ["--home", str(stack.home), "logs", "namenode", "-n", "3"]).stdout
    assert printed.splitlines() == stack.logs("namenode", 3)


def test_a_wrong_name_is_a_configuration_error(tmp_path: Path) -> None:
    result = _run(app, ["--home", str(tmp_path), "kill", "kafak"])
    assert isinstance(result.exception, ConfigError)


def test_reset_asks(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    assert _run(app, ["--home", str(tmp_path), "reset"], input="n\n").exit_code == 1
    assert (tmp_path / "servers").exists()
    assert _run(app, ["--home", str(tmp_path), "reset", "--yes"]).exit_code == 0
    assert not (tmp_path / "servers").exists()
