"""Replay to HBase while the Thrift connection or the table's regions misbehave; the oracle is what the tables hold."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from deployments import Deployment
from fault_proxy import HalfClosingProxy, SilentProxy
from hbase_replays import Case, new_case
from job_records import here

from pipeline_lib.config import Config, load_config
from pipeline_lib.errors import LodeError
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.stack.stack import Stack

ROWS = 600


@pytest.fixture(scope="session", autouse=True)
def hbase_up(stack: Stack) -> None:
    stack.up(["hbase"])


def deployed(deployment: Deployment, **settings: int) -> Deployment:
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    deployment.path.write_text(deployment.path.read_text() + f"[hbase]\n{lines}")
    return Deployment(deployment.path, load_config(deployment.path))


def filled(case: Case, rows: int = ROWS, step_ms: int = 100) -> Case:
    """Rows of one partition, in two segments."""
    times = [i * step_ms for i in range(rows)]
    values = [(case.event(f"0-{i:05}", at, n=i, body=f"b{i}"), at) for i, at in enumerate(times)]
    case.archive(0, values[: rows // 2])
    case.archive(0, values[rows // 2 :])
    return case


def at_prod(config: Config, thrift: str, **settings: int) -> Config:
    """The deployment with Prod at another address."""
    prod = config.hbase.prod
    assert prod
    prod = prod.model_copy(update={"thrift": thrift, **settings})
    return config.model_copy(update={"hbase": config.hbase.model_copy(update={"prod": prod})})


def thrift_of(config: Config) -> str:
    assert config.hbase.prod
    return config.hbase.prod.thrift


def planned(case: Case) -> tuple[ReplayRequest, str]:
    request = ReplayRequest(case.topic, case.span())
    return request, plan(case.config, request, case.sink(clusters=("prod",))).id


def carry_out(case: Case, config: Config, digest: str, run_units: Any = here) -> dict[str, Any]:
    request, sink = ReplayRequest(case.topic, case.span()), case.sink(clusters=("prod",), run_units=run_units)
    return dict(execute(config, request, replace(sink, config=config), digest, False))


def until(true: Callable[[], bool], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_begun_and_repaired(case: Case, digest: str) -> None:
    """A run that failed in the midst of writing says so, and the same line again makes the table whole."""
    assert case.entry(digest)["status"] == "started"
    assert 0 < len(case.stored("prod")) < ROWS
    entry = carry_out(case, case.config, digest)
    assert (entry["status"], entry["records"], entry["missing"]) == ("done", ROWS, 0)
    case.assert_restored(["prod"])


def test_answers_that_come_after_the_time_out(deployment: Deployment, kafka: Kafka) -> None:
    case = filled(new_case(deployed(deployment, batch_rows=50), kafka, "late"))
    _, digest = planned(case)
    proxy = SilentProxy(thrift_of(case.config), b"0-00420", seconds=5)
    with pytest.raises(LodeError, match=r"HBase prod at .*time") as told:
        carry_out(case, at_prod(case.config, proxy.address, timeout_s=1), digest)
    assert proxy.fired.is_set()
    assert told.value.exit_code == 1
    assert_begun_and_repaired(case, digest)
    # the cluster answers in time again: over the same way all goes on
    assert carry_out(case, at_prod(case.config, proxy.address, timeout_s=10), digest)["status"] == "done"
    case.assert_restored(["prod"])
    proxy.down()


def test_answers_that_come_late_but_within_the_time_out(deployment: Deployment, kafka: Kafka) -> None:
    case = filled(new_case(deployed(deployment, batch_rows=50), kafka, "slow"))
    _, digest = planned(case)
    proxy = SilentProxy(thrift_of(case.config), b"0-00420", seconds=2)
    began = time.monotonic()
    assert carry_out(case, at_prod(case.config, proxy.address, timeout_s=10), digest)["status"] == "done"
    assert time.monotonic() - began > 2
    case.assert_restored(["prod"])
    proxy.down()


@pytest.mark.parametrize("direction", ["to the client", "to the server"])
def test_a_connection_of_which_one_direction_is_shut(direction: str, deployment: Deployment, kafka: Kafka) -> None:
    case = filled(new_case(deployed(deployment, batch_rows=50), kafka, "half"))
    _, digest = planned(case)
    proxy = HalfClosingProxy(thrift_of(case.config), b"0-00420", direction)
    config = at_prod(case.config, proxy.address, timeout_s=2)
    if direction == "to the client":
        assert carry_out(case, config, digest)["status"] == "done", "the client sees the end and connects again"
        assert proxy.fired.is_set()
        case.assert_restored(["prod"])
    else:
        with pytest.raises(LodeError, match=r"HBase prod at .*time") as told:
            carry_out(case, config, digest)
        assert proxy.fired.is_set()
        assert told.value.exit_code == 1
        assert_begun_and_repaired(case, digest)
    proxy.down()
