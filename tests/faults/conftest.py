"""Fixtures of the fault tests."""

import os
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from pipeline_lib.config import Config, SparkSettings
from pipeline_lib.io.spark import Session
from pipeline_lib.job import submit_command, submit_environment


@pytest.fixture(scope="session")
def spark() -> Iterator[Session]:
    """One real session in this process, with the settings that every job gets."""
    config = Config.model_construct(spark=SparkSettings())
    os.environ |= {name: value for name, value in submit_environment(config).items() if name != "PYTHONPATH"}
    line = submit_command(config, "kafka_to_hdfs.py", [])
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join([*line[1:-1], "pyspark-shell"])
    session = SparkSession.builder.appName("tests").getOrCreate()
    yield session
    session.stop()
