"""Druid on the session's servers, started when a test first asks for it."""

import pytest
from deployments import Deployment
from druid_cases import Case, new_case

from pipeline_lib.config import load_config
from pipeline_lib.stack.stack import Stack


@pytest.fixture(scope="session")
def druid_stack(stack: Stack) -> Stack:
    stack.up(["druid"])
    return stack


@pytest.fixture
def case(druid_stack: Stack, deployment: Deployment) -> Case:
    """A datasource of the test's own, and its events table on HDFS, which is not there yet."""
    with deployment.path.open("a") as config:  # a task that hangs is told as one, before the test's own time is up
        config.write("[druid]\ntask_timeout_s = 240\nload_timeout_s = 240\n")
    return new_case(Deployment(deployment.path, load_config(deployment.path)))
