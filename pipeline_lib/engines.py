"""The engine that runs the jobs: Spark on this machine, a standalone cluster, YARN or Kubernetes (docs/engines.md).

The jobs are the same everywhere. What differs is the spark-submit line, and how the driver and the executors come to
Lode, its configuration and its secrets: on this machine and on nodes that have Lode installed they are simply there;
else `lode package` makes them (package.py), and Spark carries them to the nodes.
"""

import re
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline_lib.settings import Settings

LIBRARY, CONFIGURATION, PYTHON = "lode.zip", "lode-conf.zip", "lode-python.tar.gz"
"""What `lode package` makes; the last two are unpacked on the nodes, in folders of their names without the ending."""

SHOWN_WITHOUT_VALUE = "shown_without_value"
_SECRET_PROPERTY = re.compile("secret|password|token|access.?key", re.IGNORECASE)
_Memory = Field(default="1g", pattern=r"^\d+[mg]$")


class SparkSettings(Settings):
    """Which engine, and its size."""

    master: str = Field(default="local[2]", pattern=r"^(local(\[.+\])?|yarn|spark://.+|k8s://.+)$")
    deploy_mode: Literal["client", "cluster"] = Field(default="client", description="where the driver runs")
    driver_memory: str = _Memory
    executors: int = Field(default=2, ge=1, description="not of local masters, as the next two")
    executor_cores: int = Field(default=1, ge=1)
    executor_memory: str = _Memory
    hadoop_conf: Path | None = Field(default=None, description="HADOOP_CONF_DIR: YARN's addresses, HDFS' nameservices")
    package: Path | None = Field(default=None, description="folder of `lode package`; none: the nodes have this Lode")
    home: str | None = Field(default=None, description="where the nodes have Lode, in an image of their own")
    python: str | None = Field(default=None, description="the nodes' Python; none: the package's, or this one")
    jars: list[str] = Field(default=[], description="Delta's jars; none: those of the local stack's jars.lock")
    properties: dict[str, str] = Field(default_factory=dict, description="any others of Spark's own")

    @property
    def local(self) -> bool:
        return self.master.startswith("local")

    @property
    def in_cluster(self) -> bool:
        """Whether the driver runs on a node of the cluster."""
        return self.deploy_mode == "cluster"

    @field_validator("properties")
    @classmethod
    def _no_secrets(cls, properties: dict[str, str]) -> dict[str, str]:
        """They end up in the command line and on Spark's web page."""
        references = ("spark.kubernetes.", "spark.redaction.")
        for name in properties:
            if _SECRET_PROPERTY.search(name) and not name.startswith(references):
                text = "{name} looks like a secret, and this file and the command line are no place for one"
                raise PydanticCustomError(SHOWN_WITHOUT_VALUE, text, {"name": name})
        return properties

    @model_validator(mode="after")
    def _cluster_mode(self) -> "SparkSettings":
        problem = ""
        if self.in_cluster and not self.master.startswith(("yarn", "k8s:")):
            problem = "Spark runs no Python driver inside {master}: use client"
        elif self.in_cluster and not (self.package or self.home):
            problem = (
                "set package (or home, where the nodes' image has Lode): the driver's node has to get it from there"
            )
        if problem:
            text = f"deploy_mode = cluster: {problem}"
            raise PydanticCustomError(SHOWN_WITHOUT_VALUE, text, {"master": self.master})
        return self


def engine_arguments(spark: SparkSettings) -> list[str]:
    """What the engine asks of spark-submit: where and how large, how code and Python come to the nodes."""
    cluster = spark.in_cluster
    arguments = ["--master", spark.master, *(["--deploy-mode", "cluster"] if cluster else [])]
    arguments += ["--driver-memory", spark.driver_memory, *_executors(spark)]
    if spark.package:
        arguments += [
            "--py-files",
            str(spark.package / LIBRARY),
            "--archives",
            ",".join(_archives(spark, spark.package)),
        ]
    if not spark.local:
        python = {"spark.pyspark.python": nodes_python(spark)}
        python |= {} if cluster else {"spark.pyspark.driver.python": sys.executable}
        arguments += properties(python)
    if cluster and spark.master == "yarn":
        # A second driver would do the job a second time, and hide how the first one ended. Who schedules retries.
        arguments += properties({"spark.yarn.maxAppAttempts": "1"})
    return arguments + properties(spark.properties)


def driver_environment(spark: SparkSettings, variables: dict[str, str]) -> list[str]:
    """Sets the environment of a driver that runs in the cluster, which inherits nothing. Never a secret: this is seen."""
    prefix = "spark.yarn.appMasterEnv." if spark.master == "yarn" else "spark.kubernetes.driverEnv."
    return properties({prefix + name: value for name, value in variables.items()})


def properties(values: dict[str, str]) -> list[str]:
    """Spark properties as arguments."""
    return [word for name, value in values.items() for word in ("--conf", f"{name}={value}")]


def nodes_python(spark: SparkSettings) -> str:
    """The Python that the executors run, and the driver in a cluster."""
    if spark.python:
        return spark.python
    return f"./{unpacked(PYTHON)}/bin/python" if spark.package else sys.executable


def unpacked(archive: str) -> str:
    """The folder of an archive on the nodes."""
    return archive.partition(".")[0]


def _archives(spark: SparkSettings, package: Path) -> list[str]:
    wanted = [CONFIGURATION, *([] if spark.python else [PYTHON])]
    return [f"{package / name}#{unpacked(name)}" for name in wanted]


def _executors(spark: SparkSettings) -> list[str]:
    if spark.local:
        return []
    cores, count = str(spark.executor_cores), spark.executors
    standalone = ["--total-executor-cores", str(count * spark.executor_cores)]
    size = standalone if spark.master.startswith("spark://") else ["--num-executors", str(count)]
    return [*size, "--executor-cores", cores, "--executor-memory", spark.executor_memory]
