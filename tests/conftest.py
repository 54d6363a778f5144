"""Real servers, started once a session on loopback. Names are unique per test: tests neither clean up nor collide."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployments import Deployment
from pyspark.sql import SparkSession

from pipeline_lib.config import Config, SparkSettings, load_config
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.io.spark import Session
from pipeline_lib.job import submit_command, submit_environment
from pipeline_lib.stack.stack import JAVA_OPTIONS, Stack

# Javas that live for seconds: the first compiler alone takes half the CPU of a landing of an hour (9.5 s for 18), and the
# servers start in 20 s, not 31 (two cores).
QUICK = "-XX:TieredStopAtLevel=1"
os.environ |= {"JDK_JAVA_OPTIONS": QUICK, JAVA_OPTIONS: QUICK}

E3 = Path(os.environ.get("LODE_E3", Path(__file__).parents[2] / "shared" / "data" / "e3" / "derived"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, HDFS and S3."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.up(["kafka", "hdfs", "s3"])
        yield stack
    finally:
        stack.down()


@pytest.fixture
def deployment(stack: Stack, tmp_path: Path) -> Deployment:
    (tmp_path / "topics").mkdir()
    path = tmp_path / "lode.toml"
    (tmp_path / "analyses").mkdir()
    folders = f'topics = "{tmp_path / "topics"}"\nanalyses = "{tmp_path / "analyses"}"'
    path.write_text(f'stack = "{stack.home}"\n{folders}\n[s3]\nbucket = "lode-test"\n')
    config = load_config(path)
    S3(config.s3).create_bucket()
    return Deployment(path, config)


@pytest.fixture
def kafka(deployment: Deployment) -> Iterator[Kafka]:
    with Kafka(deployment.config.kafka) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def e3() -> Path:
    """Optimizely's published sample events."""
    if not E3.is_dir():
        pytest.skip(f"the E3 sample is not at {E3}; set LODE_E3 to its folder")
    return E3


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
