"""A stack in a temporary folder, real servers, ended after the tests that share it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_lib.stack.stack import Stack


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, HDFS and S3. A test that stops one of them starts it again."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.up(["kafka", "hdfs", "s3"])
        yield stack
    finally:
        stack.down()


@pytest.fixture
def empty_stack(tmp_path: Path) -> Iterator[Stack]:
    """No server is up yet."""
    stack = Stack(tmp_path / "a folder with blanks")
    try:
        yield stack
    finally:
        stack.down()
