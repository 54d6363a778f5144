"""Replay to HBase while the Thrift connection or the table's regions misbehave; the oracle is what the tables hold."""

import itertools
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyspark
import pytest
from deployments import Deployment
from fault_proxy import HalfClosingProxy, SilentProxy
from hbase_replays import MINUTE, Case, new_case
from job_records import here

from pipeline_lib.config import Config, load_config
from pipeline_lib.errors import LodeError
from pipeline_lib.hbase.clusters import open_cluster
from pipeline_lib.io.hbase import HBase
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.stack.hbase import _FLAGS
from pipeline_lib.stack.jars import fetch
from pipeline_lib.stack.java import java
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


def planned(case: Case) -> str:
    return plan(case.config, ReplayRequest(case.topic, case.span()), case.sink(clusters=("prod",))).id


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
    digest = planned(case)
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
    digest = planned(case)
    proxy = SilentProxy(thrift_of(case.config), b"0-00420", seconds=2)
    began = time.monotonic()
    assert carry_out(case, at_prod(case.config, proxy.address, timeout_s=10), digest)["status"] == "done"
    assert time.monotonic() - began > 2
    case.assert_restored(["prod"])
    proxy.down()


@pytest.mark.parametrize("direction", ["to the client", "to the server"])
def test_a_connection_of_which_one_direction_is_shut(direction: str, deployment: Deployment, kafka: Kafka) -> None:
    case = filled(new_case(deployed(deployment, batch_rows=50), kafka, "half"))
    digest = planned(case)
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


@contextmanager
def thrift_server(stack: Stack, folder: Path, **settings: int) -> Iterator[str]:
    """A second Thrift server of Prod, with other settings; its address."""
    site = (stack.home / "servers" / "thrift-prod" / "conf" / "hbase-site.xml").read_text()
    for name, value in settings.items():
        key = f"hbase.thrift.server.{name.replace('_', '.')}"
        site, found = re.subn(f"(<name>{key}</name><value>)[^<]*", rf"\g<1>{value}", site)
        assert found
    (folder / "hbase-site.xml").write_text(site)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    class_path = ":".join([str(folder), *map(str, fetch(["hbase"])["hbase"])])
    line = [str(java()), "-Xmx256m", *_FLAGS, "-cp", class_path, "org.apache.hadoop.hbase.thrift.ThriftServer", "start"]
    with (folder / "thrift.log").open("wb") as log:
        server = subprocess.Popen([*line, "-p", str(port), "-b", "127.0.0.1"], stdout=log, stderr=log)
    try:
        until(lambda: _listens(port))
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_connections_that_idle_past_the_servers_time_out(
    deployment: Deployment, kafka: Kafka, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow rate leaves a connection idle between two requests, longer than the server keeps it."""
    case = filled(new_case(deployed(deployment, batch_rows=100, max_rows_per_s=40), kafka, "idle"), 400)
    digest = planned(case)
    opened: list[float] = []
    connect = HBase._open

    def counted(self: HBase) -> Any:
        opened.append(time.monotonic())
        return connect(self)

    with thrift_server(stack, tmp_path, socket_read_timeout=1000) as address:
        config = at_prod(case.config, address, timeout_s=10)
        with open_cluster(config, "prod") as cluster:
            known = cluster.cluster_id()
            monkeypatch.setattr(HBase, "_open", counted)
            time.sleep(2.5)
            assert cluster.cluster_id() == known
        assert len(opened) == 1, "the server had closed the idle connection"
        entry = carry_out(case, config, digest)
        assert (entry["status"], entry["records"], entry["missing"]) == ("done", 400, 0)
        # a segment is two requests with a pause of 2.5 s after each, and all are of one unit
        assert sum(later - earlier > 2 for earlier, later in itertools.pairwise(opened)) >= 2
    case.assert_restored(["prod"])


def test_the_rate_limit_is_kept_and_made_use_of(deployment: Deployment, kafka: Kafka) -> None:
    limit, rows = 400, 2000
    case = filled(new_case(deployed(deployment, batch_rows=50, max_rows_per_s=limit), kafka, "rate"), rows, 20)
    digest = planned(case)
    took: list[float] = []

    def timed(work: Any, units: Any) -> Any:
        began = time.monotonic()
        done = here(work, units)
        took.append(time.monotonic() - began)
        return done

    entry = carry_out(case, case.config, digest, timed)
    assert (entry["status"], entry["records"]) == ("done", rows)
    assert limit / 2 <= rows / took[0] <= limit * 1.2, f"{rows / took[0]:.0f} rows/s"
    assert rows / took[1] > limit * 1.2, "reading back is not writing"
    case.assert_restored(["prod"])


def test_regions_that_split_meanwhile(deployment: Deployment, kafka: Kafka) -> None:
    table = f"split_{uuid.uuid4().hex[:8]}"
    settings = deployed(deployment, batch_rows=50, max_rows_per_s=250)
    case = filled(new_case(settings, kafka, "split", table=table), 2000, 30)
    digest = planned(case)
    with open_cluster(case.config, "prod") as cluster:
        cluster.create_table(table, "e", 2)
    middle = (case.day + MINUTE // 2).to_bytes(8, "big")
    prod = case.config.hbase.prod
    assert prod
    assert prod.zookeeper
    words = [*prod.zookeeper.rsplit(":", 1), table, (b"\0" + middle).hex(), (b"\x80" + middle).hex()]
    jars = Path(pyspark.__file__).parent / "jars"
    class_path = ":".join(
        map(str, [*fetch(["hbase"])["hbase"], *jars.glob("janino*"), *jars.glob("commons-compiler*")])
    )
    sources = str(Path(__file__).with_name("java"))
    program = ["org.codehaus.janino.JavaSourceClassLoader", "-sourcepath", sources, "Split"]
    pipe = subprocess.PIPE
    splitter = subprocess.Popen([str(java()), "-cp", class_path, *program, *words], stdin=pipe, stdout=pipe, text=True)
    try:
        assert splitter.stdout
        assert splitter.stdout.readline().split() == ["ready", "2"]
        entries: list[dict[str, Any]] = []
        run = threading.Thread(target=lambda: entries.append(carry_out(case, case.config, digest)))
        run.start()
        until(lambda: bool(case.stored("prod")))
        assert splitter.communicate("\n", timeout=60)[0].split() == ["split", "4"]
        assert run.is_alive(), "the regions split while rows were written"
        assert len(case.stored("prod")) < 2000
        run.join(120)
    finally:
        splitter.kill()
        splitter.wait(10)
    assert [(entry["status"], entry["missing"]) for entry in entries] == [("done", 0)]
    with open_cluster(case.config, "prod") as cluster:
        found = cluster.describe(table)
    assert found
    assert len(found.splits) == 3
    case.assert_restored(["prod"])
    assert carry_out(case, case.config, digest)["status"] == "done", (
        "a table with more regions than declared is no obstacle"
    )
    case.assert_restored(["prod"])
