"""The same on YARN in cluster mode. Run by hand, and not by `make test`: it was seen to pass up to both replays, and not yet
to its end, which takes a quiet machine.

    python -m pytest tests/engines/yarn_in_cluster_mode.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_engines import DAYS, TOPIC, assert_same, deployed, folder, reference

from pipeline_lib.io.s3 import S3
from pipeline_lib.io.spark import Session
from pipeline_lib.stack.s3 import credentials
from pipeline_lib.stack.spark import spark_home
from pipeline_lib.stack.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
__all__ = ["folder", "reference"]  # fixtures


@pytest.fixture(scope="module")
def servers(stack: Stack) -> Iterator[Stack]:
    """YARN with one NodeManager, and HBase Prod."""
    stack.up(["kafka", "hdfs", "s3", "thrift-prod"], also=["yarn"])
    try:
        yield stack
    finally:
        stack.down(["yarn"])


def test_yarn_in_cluster_mode(servers: Stack, folder: Path, spark: Session, reference: dict[str, Any]) -> None:
    found, keys = servers.endpoints(), credentials(servers.home)
    secrets = folder / "secrets.toml"
    secrets.touch(mode=0o600)
    secrets.write_text(f'LODE_S3_ACCESS_KEY = "{keys[0]}"\nLODE_S3_SECRET_KEY = "{keys[1]}"\n')
    deployment = deployed(
        servers,
        folder,
        "yarn",
        f'master = "yarn"\ndeploy_mode = "cluster"\nexecutors = 2\nhadoop_conf = "{found["hadoop.conf"]}"\n'
        f'package = "{folder / "package"}"\npython = "{sys.executable}"\n[spark.properties]\n'
        f'"spark.yarn.jars" = "local:{spark_home()}/jars/*"\n"spark.yarn.report.interval" = "1000"\n'
        '"spark.yarn.appMasterEnv.SPARK_LOCAL_IP" = "127.0.0.1"\n"spark.executorEnv.SPARK_LOCAL_IP" = "127.0.0.1"\n',
        head=f'secrets = "{secrets}"',
    )
    failed = deployment.lode("land", TOPIC, check=2)
    assert "run `lode package`" in failed.stderr
    deployment.lode("package")
    assert_same(deployment, spark, reference)

    # The exit code of the contract comes through, which spark-submit alone would turn into 1.
    refused = deployment.lode("replay", "kafka", TOPIC, *DAYS, "--to", f"{TOPIC}-yarn", "--execute", "0" * 16, check=2)
    assert "now make the plan" in refused.stderr
    assert not list(S3(deployment.config.s3).list("outcomes/"))

    shown = deployment.lode("archive", TOPIC, "--print-command").stdout
    logs = [p for p in (servers.home / "servers" / "nodemanager" / "containers").rglob("*") if p.is_file()]
    assert len(logs) > 10
    for text in (shown, *(log.read_text(errors="replace") for log in logs)):
        assert not [key for key in keys if key in text]
