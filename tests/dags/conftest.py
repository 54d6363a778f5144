"""Airflow in this process, on a database of its own; no server and no scheduler."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(tempfile.mkdtemp(prefix="lode-dags-"))
ARGUMENTS = ["--master", "local[1]", "--driver-memory", "1g", "--jars", "a.jar,b.jar"]

# Airflow reads these when it is first imported.
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW_CONN_SPARK_LODE": json.dumps(
        {
            "conn_type": "spark",
            "host": "local[1]",
            "extra": {"arguments": ARGUMENTS, "bin": str(HOME / "bin"), "environment": {"LODE_CONFIG": "lode.toml"}},
        }
    ),
    "PYTHONPATH": str(ROOT),
}
subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)

from airflow.dag_processing.dagbag import DagBag  # noqa: E402


@pytest.fixture(scope="session")
def bag() -> DagBag:
    """All DAGs of airflow_dags/."""
    return DagBag(ROOT / "airflow_dags")
