"""A stack without servers; `stack` has some, and a test that stops one of them starts it again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_lib.stack.stack import Stack


@pytest.fixture
def empty_stack(tmp_path: Path) -> Iterator[Stack]:
    """No server is up yet."""
    stack = Stack(tmp_path / "a folder with blanks")
    try:
        yield stack
    finally:
        stack.down()
