"""The Airflow connection `spark_lode`: how jobs of a deployment are submitted, without any secret."""

import json
from pathlib import Path
from typing import Any

from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError
from pipeline_lib.job import submit_command, submit_environment

NAME = "spark_lode"
_ENVIRONMENT = ("JAVA_HOME", "PYSPARK_PYTHON", "SPARK_LOCAL_IP", "HADOOP_CONF_DIR", "SPARK_SUBMIT_OPTS")


def spark_connection(config: Config, path: Path, stack: Path | None) -> dict[str, Any]:
    """What `lode ... --print-command` says between spark-submit and the job, and what the line needs around it.

    Args:
        config: the deployment that is read from `path`.
        stack: the folder of the local stack where the deployment has one.

    Raises:
        ConfigError: the driver runs on the cluster, so that a task would not see the job's exit code and result.
    """
    if config.spark.in_cluster:
        raise ConfigError(
            f'{path}: spark.deploy_mode = "cluster": an Airflow task cannot see how the job ended; use "client"'
        )
    binary, *arguments, _ = submit_command(config, "", [])
    around = submit_environment(config)
    environment = {name: around[name] for name in _ENVIRONMENT if name in around}
    environment["LODE_CONFIG"] = str(path.resolve())
    if stack is not None:
        environment["LODE_STACK_HOME"] = str(stack.resolve())
    extra = {"arguments": arguments, "bin": str(Path(binary).parent), "environment": environment}
    return {"conn_type": "spark", "host": config.spark.master, "extra": extra}


def as_json(connection: dict[str, Any]) -> str:
    """The connection as AIRFLOW_CONN_SPARK_LODE, or `airflow connections add --conn-json`, takes it."""
    return json.dumps(connection)
