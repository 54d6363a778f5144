"""Replay to HBase on real servers; the oracle is what the tables hold."""

import time
import zlib
from dataclasses import replace

import happybase
import pytest
from confluent_kafka import Producer
from deployments import Deployment
from hbase_replays import CLUSTERS, DAY, MINUTE, TABLE, Case, new_case
from job_records import archive, produce

from pipeline_lib.codecs import strict_json
from pipeline_lib.errors import ConfigError, DataMissing, TargetRefuses, VerificationFailed
from pipeline_lib.hbase import put
from pipeline_lib.hbase.clusters import open_cluster
from pipeline_lib.hbase.mapping import event_time_of
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.ledger.run import read_replays
from pipeline_lib.replay import hbase_clear, hbase_verify
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.stack.stack import Stack

HOUR = 60 * MINUTE


@pytest.fixture(scope="session", autouse=True)
def hbase_up(stack: Stack) -> None:
    stack.up(["hbase"])


@pytest.fixture
def case(deployment: Deployment, kafka: Kafka, request: pytest.FixtureRequest) -> Case:
    """A topic with a few events of three hours, archived."""
    made = new_case(deployment, kafka, request.node.name[5:35].rstrip("[]"))
    for partition in (0, 1):
        times = [hour * HOUR + minute * 20_000 for hour in range(3) for minute in range(50)]
        values = [(made.event(f"{partition}-{i % 140}", at, n=i, body=f"b{i}"), at) for i, at in enumerate(times)]
        made.archive(partition, [*values, (b"no json", HOUR)])
    return made


def by_event_time(case: Case, since: int, until: int) -> ReplayRequest:
    return ReplayRequest(case.topic, case.span(since, until), by="event_time")


def within(since: int, until: int, case: Case):  # type: ignore[no-untyped-def]
    return lambda key, at: since <= event_time_of(key) - case.day < until


def drop_delete_markers(case: Case) -> None:
    """Has the delete markers of the first region dropped in Prod. Thrift knows no flush, but a table that is disabled
    is flushed; and its majorCompact (2.6.1) asks for a minor one, which drops them where it takes all files, from three
    on. HBase compacts by itself as well, so files are added until it happens."""
    host, port = case.config.hbase.prod.thrift.split(":")  # type: ignore[union-attr]
    connection, probe = happybase.Connection(host, int(port)), {b"\0" * 9 + b"probe": {b"e:id": b"1"}}
    with open_cluster(case.config, "prod") as cluster:
        cluster.delete(TABLE, list(probe), 1)
        deadline, number = time.monotonic() + 120, 0
        while not cluster.get(TABLE, list(probe)):
            assert time.monotonic() < deadline
            number += 1
            cluster.delete(TABLE, [b"\0" * 9 + b"none-%d" % number], 1)  # so that there is something to flush
            connection.disable_table(TABLE)
            connection.enable_table(TABLE)
            connection.compact_table(TABLE, major=True)
            time.sleep(1)
            case.put(probe, 1, ["prod"])
    connection.close()


def shown(cells: dict[bytes, tuple[bytes, int]]) -> dict[bytes, bytes]:
    return {name: value for name, (value, _) in cells.items()}


def test_spans_come_back_in_both_clusters_however_often_and_overlapping(case: Case) -> None:
    first = ReplayRequest(case.topic, case.span(0, 2 * HOUR))
    entry = case.replay(first)
    assert (entry["status"], entry["missing"], entry["refused"]) == ("done", 0, 0)
    case.assert_restored(wanted=lambda key, at: at < 2 * HOUR)
    case.replay(ReplayRequest(case.topic, case.span(HOUR, 3 * HOUR)))
    case.assert_restored()
    for name in CLUSTERS:
        with open_cluster(case.config, name) as cluster:
            for key, cells in case.stored(name).items():
                cluster.put(TABLE, [(key, dict.fromkeys(cells, b"old"))], 1)
    again = case.replay(first)
    assert again["finished"] > entry["finished"], "done is no reason to leave a table as it is"
    case.assert_restored()
    kept = [entry.key for entry in S3(case.config.s3).list(f"replays/{entry['id']}")]
    assert kept == [f"replays/{entry['id']}.json"]
    assert [found["status"] for found in read_replays(S3(case.config.s3), case.topic)] == ["done", "done"]


def test_by_event_time_finds_late_records_and_by_id_only_the_wanted(case: Case) -> None:
    case.archive(0, [(case.event("late", HOUR + 1), 5 * DAY)])
    case.replay(by_event_time(case, HOUR, 2 * HOUR))
    case.assert_restored(wanted=within(HOUR, 2 * HOUR, case))
    ids = ("0-3", "1-70", "none")
    case.replay(sink=case.sink(ids=ids))
    inside = within(HOUR, 2 * HOUR, case)
    case.assert_restored(wanted=lambda key, at: inside(key, at) or key[9:].decode() in ids)
    assert any(key[9:] == b"late" for key in case.stored("prod"))


def test_version_v2_and_one_cluster_alone(case: Case) -> None:
    case.replay(sink=case.sink(version="v2", clusters=("loki",)))
    assert case.stored("loki", f"{TABLE}_v2") == case.expected("v2")
    with open_cluster(case.config, "prod") as cluster:
        assert f"{TABLE}_v2" not in cluster.tables()


def test_duplicates_are_no_false_alarm(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one key: in one minute, in several, in another segment and in another partition."""
    monkeypatch.setattr(hbase_verify, "TIES", 2)
    for partition, times in ((0, (5, 1, 6)), (0, (7, 8)), (1, (MINUTE + 2, MINUTE + 1, 3))):
        values = [(case.event("twice", 0, n=at, body=f"{partition} {at}"), DAY + at) for at in times]
        values += [(case.event(f"t{i}", 0, n=at), DAY + at) for i in range(5) for at in times]
        case.archive(partition, values)
    entry = case.replay()
    assert (entry["status"], entry["missing"]) == ("done", 0)
    case.assert_restored()


def test_rows_below_delete_markers_are_told_and_come_back_after_a_compaction(case: Case) -> None:
    case.replay()
    masked = sorted(case.stored("prod"))[:7]
    with open_cluster(case.config, "prod") as cluster:
        cluster.delete(TABLE, masked, case.day + 9 * DAY)
    with pytest.raises(VerificationFailed, match=f"7 records.*major_compact '{TABLE}'") as told:
        case.replay()
    assert told.value.exit_code == 12
    digest = plan(case.config, ReplayRequest(case.topic, case.span()), case.sink()).id
    entry = case.entry(digest)
    assert (entry["status"], entry["missing"]) == ("differs", 7)
    assert len(entry["examples"]) == 7
    assert all(line.startswith("prod \\x") for line in entry["examples"])
    assert case.stored("loki") == case.expected()
    with pytest.raises(VerificationFailed):
        case.replay()
    drop_delete_markers(case)
    assert case.replay()["status"] == "done"
    case.assert_restored()


def test_a_share_of_the_rows_is_read_back(case: Case) -> None:
    sink = case.sink(read_back=0.5)
    entry = case.replay(sink=sink)
    stored = case.stored("prod")
    chosen = [key for key in stored if zlib.crc32(key) < 1 << 31]
    assert 0.3 * len(stored) < len(chosen) < 0.7 * len(stored)
    assert (entry["status"], entry["records"]) == ("done", 2 * len(chosen)), "of Prod and of Loki"
    assert "reads back 50.00% of the rows" in entry["target"]
    with open_cluster(case.config, "prod") as cluster:
        cluster.delete(TABLE, list(stored), case.day + 10 * DAY)
    with pytest.raises(VerificationFailed):
        case.replay(sink=sink)
    assert case.entry(entry["id"])["missing"] == len(chosen)


def test_a_newer_live_row_is_not_hidden(case: Case) -> None:
    case.replay()
    expected = case.expected()
    key = next(iter(expected))
    live = {key: dict.fromkeys(expected[key], b"live")}
    case.put(live, case.day + 9 * DAY)
    entry = case.replay()
    assert (entry["status"], entry["foreign"]) == ("done", 2)
    for name in CLUSTERS:
        stored = case.stored(name)
        assert shown(stored.pop(key)) == live[key]
        assert stored == {k: cells for k, cells in expected.items() if k != key}


def test_clear_span_removes_what_archive_and_kafka_do_not_have(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hbase_clear, "KEYS", 20)
    monkeypatch.setattr(hbase_clear, "SLICE", 3)
    live = [(case.event("not yet archived", HOUR + 7), DAY)]
    case.replay()
    produce(case.config, case.topic, 0, [(value, case.day + at) for value, at in live])
    served = {k: shown(cells) for k, cells in case.expected().items() if k[9:] == b"not yet archived"}
    case.put(served, case.day + DAY)
    at = [(case.day + HOUR + i).to_bytes(8, "big") for i in range(-1, 9)]
    outside = {b"\0" + at[0] + b"before": {b"e:id": b"before"}}
    poison = {salt + time + b"poison": {b"e:id": b"x", b"e:n": b"y"} for time in at[1:] for salt in (b"\0", b"\x80")}
    case.put(outside | poison, case.day + 3 * DAY, ["prod"])
    known = next(key for key in case.stored("prod") if key[1:9] == (case.day + HOUR).to_bytes(8, "big"))
    case.put({known: {b"e:junk": b"stays"}}, case.day)
    request, sink = by_event_time(case, HOUR, 2 * HOUR), case.sink(clear_span=True)
    planned = plan(case.config, request, sink)
    assert planned.target["cleared"] == {"prod": len(poison), "loki": 0}
    assert "18 in prod, 0 in loki" in sink.describe(planned)
    assert case.stored("prod").keys() >= poison.keys(), "a plan changes nothing"
    one = replace(sink, ids=("0-3",))
    assert plan(case.config, request, one).target["cleared"] == {"prod": 0, "loki": 0}
    assert case.replay(request, sink)["status"] == "done"
    stored, expected = case.stored("prod"), case.expected()
    assert stored.pop(next(iter(outside)))
    assert stored[known].pop(b"e:junk")
    assert stored == expected
    again = {next(iter(poison)): {b"e:id": b"new"}}
    case.put(again, case.day + 4 * DAY)
    assert case.stored("prod").keys() >= again.keys(), "what is put later is seen"
    produce(case.config, case.topic, 1, [(b"{}", case.day)])
    archive(case.config, case.topic)


@pytest.mark.parametrize("told_by", ["lode", "server"])
def test_rows_beyond_the_limits_are_left_out_and_told(
    told_by: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_json, "MAX_VALUE_BYTES", 20 << 20)  # the codecs of today stop below HBase's limit
    left_out = {b"huge"}
    if told_by == "server":
        monkeypatch.setattr(put, "too_large", lambda row: False)
        monkeypatch.setattr(hbase_verify, "too_large", lambda row: False)
    else:
        case.archive(0, [(case.event("k" * 40_000, DAY), DAY)])
        left_out.add(b"k" * 40_000)
    options = {"bootstrap.servers": case.config.kafka.bootstrap_servers, "message.max.bytes": 30_000_000}
    producer, huge = Producer(options), case.event("huge", DAY, body="x" * (11 << 20))
    producer.produce(case.topic, huge, b"k", partition=0, timestamp=case.day + DAY)
    assert producer.flush(30) == 0
    case.archive(0, [(case.event("after", DAY), DAY)])
    for _ in range(2):
        with pytest.raises(DataMissing, match=f"{2 * len(left_out)} records were left out.*prod .*huge") as told:
            case.replay()
        assert told.value.exit_code == 10
        case.assert_restored(wanted=lambda key, at: key[9:] not in left_out)


def test_a_table_without_the_family_is_refused(case: Case) -> None:
    table = f"{TABLE}_other"
    other = new_case(case.deployment, case.kafka, "family", table=table)
    other.archive(0, [(other.event("a", 0), 0)])
    with open_cluster(case.config, "loki") as cluster:
        cluster.create_table(table, "x")
    with pytest.raises(TargetRefuses, match="no column family 'e'") as told:
        other.replay(sink=other.sink(clusters=("loki",)))
    assert told.value.exit_code == 13
    assert other.stored("loki", table) == {}


def test_another_cluster_at_the_address_is_refused(case: Case) -> None:
    request, sink = ReplayRequest(case.topic, case.span()), case.sink(clusters=("prod",))
    digest = plan(case.config, request, sink).id

    def killed(work, units):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(case.config, request, replace(sink, run_units=killed), digest, False)
    swapped = case.config.hbase.model_copy(update={"prod": case.config.hbase.loki})
    config = case.config.model_copy(update={"hbase": swapped})
    with pytest.raises(TargetRefuses, match="HBase prod is now cluster"):
        execute(config, request, replace(sink, config=config), digest, False)
    with pytest.raises(ConfigError, match="one and the same cluster"):
        plan(config, request, case.sink(config=config))


@pytest.mark.parametrize(
    ("by", "until", "clear_span", "says"),
    [
        ("timestamp", HOUR + 1, False, "whole minute"),
        ("timestamp", HOUR, True, "needs --by event_time"),
    ],
)
def test_spans_that_cannot_be_right_are_refused(by: str, until: int, clear_span: bool, says: str, case: Case) -> None:
    request = ReplayRequest(case.topic, case.span(0, until), by=by)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=says):
        plan(case.config, request, case.sink(clear_span=clear_span))


def test_clear_span_spares_a_table_of_two_topics(case: Case) -> None:
    new_case(case.deployment, case.kafka, "second")
    with pytest.raises(ConfigError, match="also holds the rows of topic rep_second"):
        plan(case.config, by_event_time(case, 0, HOUR), case.sink(clear_span=True))
