"""`lode airflow` without a start: what it says, and the connection that it prints."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from deployments import Deployment
from typer.testing import CliRunner

from pipeline_lib.airflow import local
from pipeline_lib.airflow.cli import app
from pipeline_lib.airflow.local import LocalAirflow
from pipeline_lib.errors import ConfigError


def test_the_connection_holds_the_words_that_print_command_prints(deployment: Deployment) -> None:
    topic = deployment.declare("connected")
    line = shlex.split(deployment.lode("land", topic, "--json", "--print-command").stdout)
    extra = json.loads(deployment.lode("airflow", "connection").stdout)["extra"]
    jobs = next(at for at, word in enumerate(line) if word.endswith("kafka_to_hdfs.py"))
    assert [f"{extra['bin']}/spark-submit", *extra["arguments"]] == line[:jobs]
    assert extra["environment"]["LODE_CONFIG"] == str(deployment.path)
    assert extra["environment"]["PYSPARK_PYTHON"] == sys.executable


def test_the_connection_holds_no_secret(deployment: Deployment) -> None:
    printed = deployment.lode("airflow", "connection").stdout
    assert deployment.config.s3.secret_key.get_secret_value() not in printed
    assert deployment.config.s3.access_key.get_secret_value() not in printed


def test_a_missing_environment_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "VENV", tmp_path / ".venv-airflow")
    with pytest.raises(ConfigError, match="run `make airflow`"):
        LocalAirflow(tmp_path / "airflow").up("{}")


def test_status_and_down_before_the_first_up(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert "stopped" in run(app, ["--home", str(tmp_path), "status"]).stdout
    assert run(app, ["--home", str(tmp_path), "down"]).exit_code == 0
