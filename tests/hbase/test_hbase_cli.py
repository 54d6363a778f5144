"""`lode hbase maintenance`, `sync` and `migrate` as commands: exit codes, output, and what the tables hold then."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from deployments import Deployment
from hbase_replays import CLUSTERS, Case, new_case
from job_records import here

from pipeline_lib.batches.run import Limits
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.readers import ON, notes_of
from pipeline_lib.hbase.serve import serve_topic
from pipeline_lib.hbase.state import State
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.topics import load_topic

ROWS = 60


@pytest.fixture
def case(served: Deployment, kafka: Kafka, request: pytest.FixtureRequest) -> Case:
    """Rows of two partitions, archived and served, in tables of the test's own."""
    name = request.node.name[5:20]
    case = new_case(served, kafka, name, table=f"cli_{uuid.uuid4().hex[:8]}")
    add(case, 0, ROWS)
    serve(case)
    return case


def add(case: Case, since: int, until: int) -> None:
    for partition in (0, 1):
        values = [(case.event(f"{partition}-{i:03}", i * 1000, n=i), i * 1000) for i in range(since, until)]
        case.archive(partition, values)


def serve(case: Case) -> list[str]:
    """Serves without Spark, which takes seconds to start; says which clusters were left out, and why."""
    reports = serve_topic(case.config, load_topic(case.config.topics, case.topic), Limits(), here)
    return [f"{report.cluster} {report.away}" for report in reports if report.away]


def said(case: Case, *words: str, check: int = 0) -> dict[str, Any]:
    """What a command says with --json."""
    return dict(json.loads(case.deployment.lode("hbase", *words, "--json", check=check).stdout))


@pytest.fixture
def out_of_maintenance(case: Case) -> Iterator[None]:
    """The note stands in tables that all tests share."""
    yield
    for name in CLUSTERS:
        with open_cluster(case.config, name) as cluster:
            State(cluster).set_note("loki", "maintenance", None)


@pytest.mark.usefixtures("out_of_maintenance")
def test_maintenance_of_loki(case: Case) -> None:
    assert said(case, "maintenance", "loki", "on") == {"cluster": "loki", "maintenance": "on"}
    assert notes_of(case.config, "loki")["maintenance"] == ON
    status = said(case, "status", case.topic)
    assert (status["prod"]["state"], status["loki"]["state"]) == ("up", "on")

    before = case.stored("loki")
    add(case, ROWS, ROWS + 10)
    assert serve(case) == ["loki in maintenance"]
    case.assert_restored(["prod"])
    assert case.stored("loki") == before

    foreign = b"\0" + case.day.to_bytes(8, "big") + b"foreign"
    with open_cluster(case.config, "loki") as loki:
        loki.put(case.table, [(foreign, {b"e:id": b"foreign"})], case.day)
    differs = case.deployment.lode("hbase", "maintenance", "loki", "off", check=12)
    assert "1 rows differ between prod and loki, so loki is not read yet" in differs.stderr
    assert said(case, "status", case.topic)["loki"]["state"] == "returning"
    with open_cluster(case.config, "loki") as loki:
        loki.delete(case.table, [foreign], case.day)

    done = said(case, "maintenance", "loki", "off")
    assert done == {"cluster": "loki", "maintenance": "off", "topics": 1, "rows compared": 2 * (ROWS + 10)}
    assert "maintenance" not in notes_of(case.config, "loki")
    case.assert_restored()
    not_on = case.deployment.lode("hbase", "maintenance", "loki", "off", check=2)
    assert "loki is not in maintenance" in not_on.stderr


def test_sync_of_loki(case: Case) -> None:
    keys = sorted(case.expected())
    foreign = keys[0][:9] + b"foreign"
    with open_cluster(case.config, "loki") as loki:
        loki.delete_table(case.table)
        loki.create_table(case.table, "e", 2)  # a deleted row would hide what is written with its timestamp
        stored = case.stored("prod")
        for key in keys[5:]:
            values, at = {name: value for name, (value, _) in stored[key].items()}, next(iter(stored[key].values()))[1]
            loki.put(case.table, [(key, values)], at)
        loki.put(case.table, [(keys[7], {b"e:n": b"changed!"})], next(iter(stored[keys[7]].values()))[1])
        loki.put(case.table, [(foreign, {b"e:id": b"foreign"})], case.day)
    broken = case.stored("loki")
    sync = ["sync", case.topic, "--from", "prod", "--to", "loki"]

    plan = said(case, *sync)
    counts = {name: plan[name] for name in ("add", "replace", "delete", "only_in_target")}
    assert counts == {"add": 5, "replace": 1, "delete": 0, "only_in_target": 1}
    assert (plan["left"], plan["right"], plan["table"]) == ("prod", "loki", case.table)
    assert case.stored("loki") == broken, "a plan changes nothing"
    table = case.deployment.lode("hbase", *sync).stdout
    assert plan["digest"] in table

    refused = case.deployment.lode("hbase", *sync, "--execute", "0" * 16, check=2)
    assert "look at it again before it is executed" in refused.stderr
    assert case.stored("loki") == broken
    done = case.deployment.lode("hbase", *sync, "--execute", plan["digest"], "--json", check=12)
    assert "1 rows are only in the target: --delete removes them" in done.stderr
    assert json.loads(done.stdout)["add"] == 5
    assert case.stored("loki").pop(foreign)

    cleared = said(case, *sync, "--delete")
    assert (cleared["add"], cleared["replace"], cleared["delete"]) == (0, 0, 1)
    assert said(case, *sync, "--delete", "--execute", cleared["digest"])["delete"] == 1
    case.assert_restored()


def test_migration_to_v2(case: Case) -> None:
    migrate = ["migrate", case.topic, "--to", "v2"]
    packed = mapping_of(load_topic(case.config.topics, case.topic)).version("v2").table
    state = said(case, *migrate)
    assert (state["serve writes"], state["readers take"]) == ("prod: v1; loki: v1", "prod: v1; loki: v1")
    assert state["next"].endswith("--step start")
    unknown = case.deployment.lode("hbase", "migrate", case.topic, "--to", "v9", "--step", "start", check=2)
    assert "'v9' is not declared" in unknown.stderr
    early = case.deployment.lode("hbase", *migrate, "--step", "finish", check=2)
    assert "switch to v2 first" in early.stderr

    started = said(case, *migrate, "--step", "start")
    assert started["serve writes"] == "prod: v1, v2; loki: v1, v2"
    assert "lode replay hbase" in started["next"]
    differs = case.deployment.lode("hbase", *migrate, "--step", "switch", check=12)
    assert f"{4 * ROWS} of {4 * ROWS} rows" in differs.stderr
    assert "only in the old one" in differs.stderr

    case.replay(sink=case.sink(version="v2"))
    switched = said(case, *migrate, "--step", "switch")
    assert switched["readers take"] == "prod: v2; loki: v2"
    assert switched["next"].endswith("--step finish")
    late = case.deployment.lode("hbase", *migrate, "--step", "undo", check=2)
    assert "can no longer be undone" in late.stderr
    assert said(case, *migrate, "--step", "finish")["next"] == "nothing: it is done"

    add(case, ROWS, ROWS + 5)
    serve(case)
    for name in CLUSTERS:
        assert case.stored(name, packed) == case.expected("v2")
        assert case.stored(name) == case.expected(wanted=lambda key, at: at < ROWS * 1000)
