"""Replay to HBase under faults: whatever happens, a run again ends with the right table, and the exit code is true."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from deployments import Deployment
from fault_proxy import FaultProxy
from faults_common import kill, start
from hbase_replays import CLUSTERS, TABLE, Case, new_case

from pipeline_lib.config import load_config
from pipeline_lib.errors import LodeError
from pipeline_lib.hbase.clusters import open_cluster
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.stack.stack import Stack

ROWS = 4_000


@pytest.fixture(scope="session", autouse=True)
def hbase_up(stack: Stack) -> None:
    stack.up(["hbase"])


@pytest.fixture
def case(deployment: Deployment, kafka: Kafka) -> Case:
    """Rows of an hour, in several segments a partition; written slowly enough to be hit by a fault."""
    small = "[batch]\nsegment_bytes = 1048576\nfetch_bytes = 65536\n[hbase]\nmax_rows_per_s = 2500\nbatch_rows = 200\n"
    deployment.path.write_text(deployment.path.read_text() + small)
    case = new_case(Deployment(deployment.path, load_config(deployment.path)), kafka, "faults")
    for partition in (0, 1):
        times = [i * 3_600_000 // ROWS for i in range(ROWS // 2)]
        body = "x" * 1500
        case.archive(partition, [(case.event(f"{partition}-{i:05}", at, body=body), at) for i, at in enumerate(times)])
    return case


def planned(case: Case, clusters: tuple[str, ...] = CLUSTERS) -> tuple[ReplayRequest, str]:
    request = ReplayRequest(case.topic, case.span())
    return request, plan(case.config, request, case.sink(clusters=clusters)).id


def until(true: Callable[[], bool], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_and_resumed(case: Case, tmp_path: Path) -> None:
    request, digest = planned(case)
    arguments = [case.topic, "--since", str(request.span.since), "--until", str(request.span.until)]
    arguments += ["--execute", digest, "--json"]
    log = tmp_path / "killed.log"
    job = start(case.config, case.deployment.path, "s3_to_hbase.py", *arguments, log=log)
    until(lambda: "event=progress" in log.read_text() or job.poll() is not None)
    kill(job)
    job.wait(30)
    assert 0 < sum(len(case.stored(name)) for name in CLUSTERS) < 2 * ROWS, log.read_text()
    marks = [entry.key for entry in S3(case.config.s3).list(f"replays/{digest}/")]
    assert marks
    assert case.entry(digest)["status"] == "started"
    log = tmp_path / "resumed.log"
    job = start(case.config, case.deployment.path, "s3_to_hbase.py", *arguments, log=log)
    assert job.wait(120) == 0, log.read_text()
    entry = case.entry(digest)
    assert (entry["status"], entry["records"], entry["missing"]) == ("done", 2 * ROWS, 0)
    case.assert_restored()
    assert not list(S3(case.config.s3).list(f"replays/{digest}/"))


def test_a_resumed_replay_goes_on_behind_its_marks(case: Case) -> None:
    request, digest = planned(case)
    written: list[str] = []

    def killed(work, units):  # type: ignore[no-untyped-def]
        for unit in units[:1]:
            written.append(unit.cluster)
            work(unit)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(case.config, request, replace(case.sink(), run_units=killed), digest, False)
    first = case.stored("prod")
    assert len(first) == ROWS // 2
    with open_cluster(case.config, "prod") as cluster:
        cluster.delete(TABLE, sorted(first)[:3], 1)  # hides nothing: shows that these are not put again
        for key in sorted(first)[:3]:
            cluster.put(TABLE, [(key, {b"e:id": b"changed"})], next(iter(first[key].values()))[1])
    assert execute(case.config, request, case.sink(), digest, False)["missing"] == 3
    assert execute(case.config, request, case.sink(), digest, False)["status"] == "done", "all is put again"
    case.assert_restored()


def test_the_same_replay_twice_at_once(case: Case) -> None:
    request, digest = planned(case)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(execute, case.config, request, case.sink(), digest, False) for _ in range(2)]
    assert [run.result()["status"] for run in runs] == ["done", "done"]
    case.assert_restored()


@pytest.mark.parametrize("before", [True, False], ids=["half a request", "the answer"])
def test_a_connection_that_is_cut(before: bool, case: Case) -> None:
    request, digest = planned(case, ("prod",))
    prod = case.config.hbase.prod
    assert prod
    proxy = FaultProxy(prod.thrift, b"0-00120", action=lambda: None, before=before)
    through = case.config.hbase.model_copy(update={"prod": prod.model_copy(update={"thrift": proxy.address})})
    config = case.config.model_copy(update={"hbase": through})
    entry = execute(config, request, case.sink(config=config, clusters=("prod",)), digest, False)
    assert proxy.fired.is_set()
    assert entry["status"] == "done"
    case.assert_restored(["prod"])
    proxy.close()


@pytest.mark.parametrize("server", ["thrift-prod", "hbase-prod"])
def test_a_server_that_is_killed(server: str, case: Case, stack: Stack) -> None:
    request, digest = planned(case, ("prod",))
    ended: list[str] = []

    def carry_out() -> None:
        try:
            ended.append(execute(case.config, request, case.sink(clusters=("prod",)), digest, False)["status"])
        except LodeError as error:
            ended.append(f"{error.exit_code} {error}")

    run = threading.Thread(target=carry_out)
    run.start()
    until(lambda: bool(list(S3(case.config.s3).list(f"replays/{digest}/"))))
    stack.kill(server)
    time.sleep(1)
    assert not ended
    stack.up(["hbase"])
    run.join(180)
    if ended != ["done"]:
        assert ended[0][:2] == "1 ", ended
        carry_out()
    assert ended[-1] == "done"
    case.assert_restored(["prod"])


def test_a_cluster_that_is_down_changes_nothing(case: Case) -> None:
    loki = case.config.hbase.loki
    assert loki
    gone = loki.model_copy(update={"thrift": "127.0.0.1:1", "timeout_s": 1})
    config = case.config.model_copy(update={"hbase": case.config.hbase.model_copy(update={"loki": gone})})
    with pytest.raises(LodeError, match="HBase loki at 127") as told:
        plan(config, ReplayRequest(case.topic, case.span()), case.sink(config=config))
    assert told.value.exit_code == 1
    assert case.stored("prod") == {}
