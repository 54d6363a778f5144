"""Serve on real servers: both clusters hold what Kafka has, whatever happens to a run or to one of them."""

import json
import socket
from dataclasses import dataclass
from typing import Any

import pytest
from deployments import Deployment
from job_records import HOUR, START, event, here, produce

from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError, LostRace, ServerUnavailable, TargetRefuses, VerificationFailed
from pipeline_lib.hbase import maintenance
from pipeline_lib.hbase.mapping import event_time_of
from pipeline_lib.hbase.readers import choose_reader, notes_of
from pipeline_lib.hbase.serve import ClusterReport, serve_topic
from pipeline_lib.hbase.state import State
from pipeline_lib.io.hbase import HBase
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.topics import Topic, load_topic

JSON = 'codec = "json"\nid_field = "id"\n[event_time]\nfield = "at"\n[fields]\nid = "string"\nat = "bigint"\n'


@dataclass(frozen=True)
class Case:
    config: Config
    topic: Topic
    table: str

    def produce(self, *names: str, partition: int = 0) -> None:
        values = [(event(name, START + at * 1000), START + at * 1000) for at, name in enumerate(names)]
        produce(self.config, self.topic.name, partition, values)

    def serve(self, config: Config | None = None, run_units: Any = here) -> list[ClusterReport]:
        return serve_topic(config or self.config, self.topic, Limits(), run_units)

    def names(self, cluster: HBase) -> list[str]:
        """The ids of the events in the table, whose rows must be whole."""
        found = []
        for key, cells in cluster.scan(self.table):
            name = key[9:].decode()
            assert cells[b"e:id"][0] == name.encode()
            assert int.from_bytes(cells[b"e:at"][0], "big") == event_time_of(key)
            found.append(name)
        return sorted(found)


@pytest.fixture
def case(served: Deployment, kafka: Kafka) -> Case:
    name = served.declare("serve", "")
    mapping = f'[hbase]\nkey = ["id"]\nsalt_buckets = 2\n[hbase.versions.v1]\ntable = "{name}"\n'
    (served.config.topics / f"{name}.toml").write_text(f'name = "{name}"\n{JSON}{mapping}')
    kafka.create_topic(name, 2)
    return Case(served.config, load_topic(served.config.topics, name), name)


def without_loki(config: Config) -> Config:
    """The deployment while Loki does not answer: its address is one on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    assert config.hbase.loki
    loki = config.hbase.loki.model_copy(update={"thrift": address, "timeout_s": 1})
    return config.model_copy(update={"hbase": config.hbase.model_copy(update={"loki": loki})})


def test_both_clusters_hold_what_kafka_has(case: Case, prod: HBase, loki: HBase) -> None:
    case.produce("a", "b", "b")
    case.produce("c", partition=1)
    produce(case.config, case.topic.name, 1, [(b"no json", START)])
    reports = case.serve()
    assert [report.versions["v1"].rows for report in reports] == [{"rows": 4, "quarantined": 1, "refused": 0}] * 2
    assert case.names(prod) == case.names(loki) == ["a", "b", "b", "c"]  # two events with the name b, a second apart
    assert [report.versions["v1"].batches for report in case.serve()] == [0, 0]
    case.produce("d")
    assert [report.versions["v1"].rows["rows"] for report in case.serve()] == [1, 1]
    info = prod.describe(case.table)
    assert info is not None
    assert (info.families, info.splits) == ({"e": 1}, (b"\x80" + bytes(7),))


def test_a_run_that_ends_before_its_progress_is_repeated_harmlessly(case: Case, prod: HBase, loki: HBase) -> None:
    case.produce("a", "b")

    def interrupted(work: Any, units: Any) -> Any:
        here(work, units)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.serve(run_units=interrupted)
    before = list(prod.scan(case.table))
    assert len(before) == 2
    case.serve()
    assert list(prod.scan(case.table)) == before == list(loki.scan(case.table))


def test_a_cluster_that_is_away_catches_up_by_itself(case: Case, prod: HBase, loki: HBase) -> None:
    case.produce("a")
    case.serve()
    away = without_loki(case.config)
    case.produce("b")
    reports = case.serve(away)
    assert (reports[0].away, bool(reports[1].away)) == ("", True)
    assert (case.names(prod), case.names(loki)) == (["a", "b"], ["a"])
    since = notes_of(away, "loki")["diverged_since"]
    case.produce("c")
    case.serve(away)
    assert notes_of(away, "loki")["diverged_since"] == since, "the first moment is kept"
    choice = choose_reader(away)
    assert (choice.cluster.name, choice.passed) == ("prod", {})
    case.serve()
    assert case.names(prod) == case.names(loki) == ["a", "b", "c"]
    assert notes_of(case.config, "loki") == {}


def test_no_cluster_at_all_is_an_error(case: Case) -> None:
    away = without_loki(case.config)
    neither = away.model_copy(update={"hbase": away.hbase.model_copy(update={"prod": away.hbase.loki})})
    with pytest.raises(ServerUnavailable, match=r"prod.*loki"):
        case.serve(neither)
    none = away.model_copy(update={"hbase": away.hbase.model_copy(update={"prod": None, "loki": None})})
    with pytest.raises(ConfigError, match="no HBase cluster"):
        case.serve(none)


def test_of_two_runs_at_once_one_commits(case: Case, prod: HBase, loki: HBase) -> None:
    case.produce("a")
    case.serve()
    case.produce("b")
    overtaken: list[bool] = []

    def slow(work: Any, units: Any) -> Any:
        if not overtaken:
            overtaken.append(True)
            case.serve()
        return here(work, units)

    with pytest.raises(LostRace):
        case.serve(run_units=slow)
    assert case.names(prod) == case.names(loki) == ["a", "b"]
    assert [report.versions["v1"].batches for report in case.serve()] == [0, 0]


def test_a_table_that_is_not_as_declared_is_refused(case: Case, prod: HBase) -> None:
    prod.create_table(case.table, "other")
    case.produce("a")
    with pytest.raises(TargetRefuses, match="column family 'e'"):
        case.serve()
    assert case.names(prod) == []


def test_maintenance_points_readers_at_the_other_cluster(case: Case, prod: HBase, loki: HBase) -> None:
    case.produce("a")
    case.serve()
    maintenance.begin(case.config, "prod")
    try:
        with pytest.raises(ConfigError, match="prod is in maintenance"):
            maintenance.begin(case.config, "loki")
        case.produce("b")
        assert [report.away for report in case.serve()] == ["in maintenance", ""]
        assert (case.names(prod), case.names(loki)) == (["a"], ["a", "b"])
        choice = choose_reader(case.config)
        assert choice.cluster.name == "loki"
        assert choice.passed["prod"].startswith("in maintenance")
        (lost,) = (key for key, _ in loki.scan(case.table) if key[9:] == b"a")
        loki.delete(case.table, [lost], START + HOUR)
        with pytest.raises(VerificationFailed, match="1 rows differ"):
            maintenance.end(case.config, [case.topic], "prod", here)
        assert choose_reader(case.config).cluster.name == "loki", "until the clusters are equal"
        prod.delete(case.table, [lost], START + HOUR)
    finally:
        compared = maintenance.end(case.config, [case.topic], "prod", here)
    assert compared == 1
    assert choose_reader(case.config).cluster.name == "prod"
    with pytest.raises(ConfigError, match="not in maintenance"):
        maintenance.end(case.config, [case.topic], "prod", here)


def test_the_command_says_what_it_did_and_what_is_missing(case: Case, served: Deployment, prod: HBase) -> None:
    case.produce("a", "b")
    result = json.loads(served.lode("serve", case.topic.name, "--json").stdout)
    assert {name: values["v1"]["rows"] for name, values in result.items()} == {"prod": 2, "loki": 2}
    status = json.loads(served.lode("hbase", "status", case.topic.name, "--json").stdout)
    assert [(values["state"], values["behind"], values["read"]) for values in status.values()] == [("up", 0, "v1")] * 2
    refused = served.lode("serve", served.declare("plain"), check=2)
    assert "declares no [hbase] mapping" in refused.stderr


def test_progress_that_another_run_moved_is_not_overwritten(prod: HBase) -> None:
    state = State(prod)
    state.create()
    state.move("t", "lode:test-progress:0", None, 5)
    with pytest.raises(LostRace):
        state.move("t", "lode:test-progress:0", None, 7)
    state.move("t", "lode:test-progress:0", 5, 7)
    assert state.progress("t", {0: "lode:test-progress:0", 1: "lode:test-progress:1"}) == {0: 7}
    prod.delete("lode", [b"progress|t|lode:test-progress:0"], 1 << 60)
