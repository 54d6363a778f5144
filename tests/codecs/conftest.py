"""Optimizely's sample events as collector batches, where the data is at hand."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def e3() -> Callable[[str], list[bytes]]:
    """Reads a file of E3 collector batches, one record value a line. The directory is in LODE_E3 (…/e3/derived)."""
    directory = Path(os.environ.get("LODE_E3", Path(__file__).parents[3] / "shared" / "data" / "e3" / "derived"))

    def read(name: str) -> list[bytes]:
        path = directory / f"{name}.jsonl.gz"
        if not path.exists():
            pytest.skip(f"no {path.name}: point LODE_E3 at the E3 sample")
        return gzip.decompress(path.read_bytes()).splitlines()

    return read
