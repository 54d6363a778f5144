"""Serve and replay to HBase beside each other, with a damaged segment or without Loki; the oracle is the tables."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment
from faults_common import start
from hbase_replays import CLUSTERS, DAY, MINUTE, Case, new_case
from job_records import archive, here, produce

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import load_config
from pipeline_lib.errors import DataMissing, VerificationFailed
from pipeline_lib.hbase.readers import notes_of
from pipeline_lib.hbase.serve import serve_topic
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.replay.options import replay
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.stack.stack import Stack
from pipeline_lib.topics import load_topic

ROWS = 400


@pytest.fixture(scope="session", autouse=True)
def hbase_up(stack: Stack) -> None:
    stack.up(["hbase"])


def until(true: Callable[[], bool], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serve(case: Case) -> None:
    reports = serve_topic(case.config, load_topic(case.config.topics, case.topic), Limits(), here)
    assert [report.away for report in reports] == ["", ""]


def test_a_damaged_segment_is_left_out_and_comes_later(deployment: Deployment, kafka: Kafka) -> None:
    case = new_case(Deployment(deployment.path, load_config(deployment.path)), kafka, "damaged")
    for partition in (0, 1):
        times = [i * 1000 for i in range(ROWS // 2)]
        for part in (times[: ROWS // 4], times[ROWS // 4 :]):
            case.archive(partition, [(case.event(f"{partition}-{at}", at, body="x" * 50), at) for at in part])
    request, sink = ReplayRequest(case.topic, case.span()), case.sink()
    planned = plan(case.config, request, sink)
    damaged = planned.partitions[1][0]
    store, key = S3(case.config.s3), f"{archive_path(kafka.cluster_id(), case.topic)}/{damaged.path}"
    whole = store.get(key)
    assert whole
    middle = len(whole) // 2
    store.put(key, whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])

    with pytest.raises(VerificationFailed, match="corrupt") as told:
        replay(case.config, request, sink, planned.id, skip_corrupt=False, as_json=True)
    assert told.value.exit_code == 12

    lost = {f"1-{at}".encode() for at in range(0, ROWS // 4 * 1000, 1000)}
    words = [case.topic, "--since", str(request.span.since), "--until", str(request.span.until)]
    words += ["--execute", planned.id, "--skip-corrupt", "--json"]
    done = case.deployment.lode("replay", "hbase", *words, check=10)
    assert f"corrupt segments were left out: {damaged.path}" in done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["records"], result["corrupt"]) == ("done", 2 * (ROWS - ROWS // 4), [damaged.path])
    case.assert_restored(wanted=lambda key, at: key[9:] not in lost)
    with pytest.raises(DataMissing) as missing:  # again, with the same end
        replay(case.config, request, sink, planned.id, skip_corrupt=True, as_json=True)
    assert missing.value.exit_code == 10
    case.assert_restored(wanted=lambda key, at: key[9:] not in lost)

    store.put(key, whole)
    replay(case.config, request, sink, planned.id, skip_corrupt=False, as_json=True)
    entry = case.entry(planned.id)
    assert (entry["status"], entry["records"], entry["corrupt"]) == ("done", 2 * ROWS, [])
    case.assert_restored()


def slow_case(deployment: Deployment, kafka: Kafka, name: str) -> Case:
    """Rows that were served, archived, and take some seconds to be replayed."""
    with deployment.path.open("a") as config:
        config.write("[hbase]\nmax_rows_per_s = 200\nbatch_rows = 20\n")
    case = new_case(Deployment(deployment.path, load_config(deployment.path)), kafka, name)
    for partition in (0, 1):
        values = [(case.event(f"{partition}-{i:03}", 0, n=i, body="old"), i * 100) for i in range(ROWS // 2)]
        for half in (values[: ROWS // 4], values[ROWS // 4 :]):
            case.archive(partition, half)
    serve(case)
    return case


def replay_beside(case: Case, request: ReplayRequest, work: Callable[[], None]) -> dict[str, Any]:
    """Replays while `work` goes on, from when a first part is written; returns the entry."""
    digest, entries = plan(case.config, request, case.sink()).id, list[dict[str, Any]]()
    run = threading.Thread(target=lambda: entries.append(execute(case.config, request, case.sink(), digest, False)))
    run.start()
    until(lambda: bool(list(S3(case.config.s3).list(f"replays/{digest}/"))))
    work()
    assert run.is_alive(), "the rows were served while the replay wrote"
    run.join(120)
    (entry,) = entries
    return entry


def test_newer_versions_are_served_while_their_span_is_replayed(deployment: Deployment, kafka: Kafka) -> None:
    case = slow_case(deployment, kafka, "beside")
    numbers = range(0, ROWS // 2, 7)  # among the first that are replayed, and the last

    def live() -> None:
        for partition in (0, 1):
            newer = [(case.event(f"{partition}-{i:03}", 0, n=-i, body="new"), DAY + i) for i in numbers]
            produce(case.config, case.topic, partition, [(value, case.day + at) for value, at in newer])
        serve(case)

    entry = replay_beside(case, ReplayRequest(case.topic, case.span(0, MINUTE)), live)
    assert (entry["status"], entry["records"], entry["missing"]) == ("done", 2 * ROWS, 0)
    case.assert_restored()
    for name in CLUSTERS:
        found = [cells[b"e:body"][0] for cells in case.stored(name).values()]
        assert (found.count(b"new"), len(found)) == (2 * len(numbers), ROWS)
    archive(case.config, case.topic)
    assert case.replay()["status"] == "done"
    case.assert_restored()


def test_newer_versions_of_the_minute_that_is_replayed(deployment: Deployment, kafka: Kafka) -> None:
    """Of the newest minute, and not archived yet: the replay puts the older row later, with an equal cell timestamp."""
    case = slow_case(deployment, kafka, "minute")

    def live() -> None:
        newer = [(case.event(f"{p}-{i:03}", 0, body="new"), 50_000 + i) for p in (0, 1) for i in range(150, 200)]
        for partition in (0, 1):
            mine = [(value, case.day + at) for value, at in newer[partition * 50 : partition * 50 + 50]]
            produce(case.config, case.topic, partition, mine)
        serve(case)

    entry = replay_beside(case, ReplayRequest(case.topic, case.span(0, MINUTE)), live)
    assert (entry["status"], entry["missing"]) == ("done", 0)
    case.assert_restored()
    archive(case.config, case.topic)
    assert case.replay()["status"] == "done"
    case.assert_restored()


def test_loki_is_down_for_a_whole_run(deployment: Deployment, kafka: Kafka, stack: Stack, tmp_path: Path) -> None:
    with deployment.path.open("a") as config:
        config.write("[hbase.loki]\ntimeout_s = 5\n")
    case = new_case(Deployment(deployment.path, load_config(deployment.path)), kafka, "away")
    for partition in (0, 1):
        times = [i * 1000 for i in range(ROWS // 2)]
        values = [(case.event(f"{partition}-{at}", at, n=at), case.day + at) for at in times]
        produce(case.config, case.topic, partition, values)

    def served(log: Path, code: int) -> str:
        job = start(case.config, case.deployment.path, "kafka_to_hbase.py", case.topic, log=log)
        try:
            assert job.wait(120) == code, log.read_text()
        except subprocess.TimeoutExpired:
            job.kill()
            raise
        return log.read_text()

    before = case.config
    stack.kill("thrift-loki")
    try:
        text = served(tmp_path / "away.log", 10)
        assert "not served to loki" in text
        assert "run again when it is back" in text
        case.assert_restored(["prod"])
        since = notes_of(case.config, "loki", ["prod"])["diverged_since"]
        status = json.loads(case.deployment.lode("hbase", "status", case.topic, "--json").stdout)
        assert (status["prod"]["state"], status["prod"]["behind"]) == ("up", 0)
        assert status["loki"]["state"].startswith("away")
        assert status["loki"]["diverged_since"] == since
    finally:
        stack.up(["hbase"])
    assert load_config(case.deployment.path) == before, "the server is back at its address"
    assert case.stored("loki") == {}
    text = served(tmp_path / "back.log", 0)
    assert "event=caught_up" in text
    assert since in text
    case.assert_restored()
    assert notes_of(case.config, "loki") == {}
    status = json.loads(case.deployment.lode("hbase", "status", case.topic, "--json").stdout)
    assert [(values["state"], values["behind"]) for values in status.values()] == [("up", 0)] * 2
    assert "diverged_since" not in status["loki"]
