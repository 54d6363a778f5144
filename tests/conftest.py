"""Real servers, started once a session on loopback; names are unique per test, so tests neither clean up nor collide."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline_lib.config import Config, load_config
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.stack.stack import Stack

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


@dataclass(frozen=True)
class Deployment:
    """A configuration file of the test's own, with topics of its own."""

    path: Path
    config: Config

    def declare(self, name: str, toml: str = 'codec = "raw"') -> str:
        """Declares a topic with the given settings under a unique name; returns the name."""
        topic = f"{name}-{uuid.uuid4().hex[:8]}"
        (self.config.topics / f"{topic}.toml").write_text(f'name = "{topic}"\n{toml}\n')
        return topic

    def lode(self, *arguments: str, check: int | None = 0, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Runs `lode`; by default its exit code must be 0, with check=None any is fine."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout, check=False)
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pipeline_lib", *arguments, "--config", str(self.path)]


@pytest.fixture
def deployment(stack: Stack, tmp_path: Path) -> Deployment:
    (tmp_path / "topics").mkdir()
    path = tmp_path / "lode.toml"
    path.write_text(f'stack = "{stack.home}"\ntopics = "{tmp_path / "topics"}"\n[s3]\nbucket = "lode-test"\n')
    config = load_config(path)
    S3(config.s3).create_bucket()
    return Deployment(path, config)


@pytest.fixture
def kafka(deployment: Deployment) -> Iterator[Kafka]:
    with Kafka(deployment.config.kafka) as kafka:
        yield kafka
