"""Prod and Loki on the session's servers, started when a test first asks for them."""

from collections.abc import Iterator

import pytest
from deployments import Deployment

from pipeline_lib.config import Config, load_config
from pipeline_lib.hbase.clusters import open_cluster
from pipeline_lib.io.hbase import HBase
from pipeline_lib.stack.stack import Stack


@pytest.fixture(scope="session")
def hbase_stack(stack: Stack) -> Stack:
    stack.up(["hbase"])
    return stack


@pytest.fixture
def served(hbase_stack: Stack, deployment: Deployment) -> Deployment:
    """A deployment of the test's own that has both clusters."""
    return Deployment(deployment.path, load_config(deployment.path))


@pytest.fixture
def prod(served: Deployment) -> Iterator[HBase]:
    yield from _cluster(served.config, "prod")


@pytest.fixture
def loki(served: Deployment) -> Iterator[HBase]:
    yield from _cluster(served.config, "loki")


def _cluster(config: Config, name: str) -> Iterator[HBase]:
    with open_cluster(config, name) as cluster:
        yield cluster
