"""Two clusters and the archive compared and repaired, with known sets on real servers."""

import subprocess
import time
from contextlib import ExitStack

import pyarrow.compute as pc
import pytest
from deployments import Deployment
from job_records import HOUR, JSON_TOPIC, archive, event, here, produce

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.config import Config, HBaseCluster
from pipeline_lib.errors import ConfigError, ServerUnavailable, VerificationFailed
from pipeline_lib.hbase import diff_run
from pipeline_lib.hbase.diff_run import Comparison, Report, diff, open_comparison, span_ms
from pipeline_lib.hbase.mapping import Row, latest, put_batches, row_key, rows
from pipeline_lib.hbase.sides import SideName
from pipeline_lib.hbase.sync import check_synced, plan_sync, sync
from pipeline_lib.io.hbase import HBase
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.job import submit_command, submit_environment
from pipeline_lib.landing.rows import land_records
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.topics import Topic, load_topic

START = 1_795_392_000_000 - 30 * 24 * HOUR  # in the past, whatever the hour: the newest minutes are left out
AT = (time.time_ns() // 1_000_000 // HOUR - 2) * HOUR  # of cells and records: Kafka removes what is older than 7 days
FIELDS = JSON_TOPIC + '\nv = "string"\n'


@pytest.fixture
def topic(served: Deployment, prod: HBase, loki: HBase) -> Topic:
    """A topic of the test's own, with an empty table in both clusters."""
    return declared(served, prod, loki)


def declared(served: Deployment, *clusters: HBase) -> Topic:
    name = served.declare("diff", FIELDS)
    table = "diff_" + name.rpartition("-")[2]
    path = served.config.topics / f"{name}.toml"
    mapping = f'[hbase]\nkey = ["id"]\nsalt_buckets = 4\n[hbase.versions.v1]\ntable = "{table}"\n'
    path.write_text(path.read_text() + mapping)
    for cluster in clusters:
        cluster.create_table(table, "e")
    return load_topic(served.config.topics, name)


def table_of(topic: Topic) -> str:
    assert topic.hbase
    return topic.hbase.version("v1").table


def row(topic: Topic, number: int, value: str = "v", timestamp: int = AT, at: int | None = None) -> Row:
    assert topic.hbase
    key = row_key(topic.hbase, START + number * 1000 if at is None else at, [f"id{number}"])
    return Row(key, {b"e:id": b"id%d" % number, b"e:v": value.encode()}, timestamp)


def put(cluster: HBase, topic: Topic, found: list[Row]) -> None:
    for batch in put_batches(found, 1000, 1 << 20):
        cluster.put(table_of(topic), [(each.key, each.cells) for each in batch], batch[0].timestamp)


def comparison(
    config: Config, topic: Topic, left: SideName = "prod", right: SideName = "loki", since: str = "", until: str = ""
) -> Comparison:
    return open_comparison(config, topic, "v1", (left, right), *span_ms(since or None, until or None))


def compare(config: Config, topic: Topic, left: SideName = "prod", right: SideName = "loki") -> Report:
    return diff(comparison(config, topic, left, right), here)


def counts(report: Report) -> tuple[int, int, int, int, int]:
    found = report.differences
    return report.left_rows, report.right_rows, found.only_in_left, found.only_in_right, found.different


def test_each_kind_of_difference_is_found(served: Deployment, topic: Topic, prod: HBase, loki: HBase) -> None:
    same = [row(topic, number) for number in range(2000)]
    put(prod, topic, same)
    put(loki, topic, [each._replace(timestamp=AT + 60_000) for each in same])
    assert counts(compare(served.config, topic)) == (2000, 2000, 0, 0, 0), "cell timestamps are not compared"

    put(prod, topic, [row(topic, 5000)])
    put(loki, topic, [row(topic, 6000, at=-HOUR), row(topic, 7, "changed", AT + 120_000)])
    loki.delete(table_of(topic), [row(topic, 1234).key], AT + 60_000)
    report = compare(served.config, topic)
    assert counts(report) == (2001, 2000, 2, 1, 1)
    assert sorted((kind, name) for kind, _, name in report.differences.examples) == [
        ("different", "id7"),
        ("only_in_left", "id1234"),
        ("only_in_left", "id5000"),
        ("only_in_right", "id6000"),
    ]
    assert counts(compare(served.config, topic, "loki", "prod")) == (2000, 2001, 1, 2, 1)


def test_only_slots_that_differ_are_read_again(
    served: Deployment, topic: Topic, prod: HBase, loki: HBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [row(topic, number) for number in range(3000)]
    put(prod, topic, same)
    put(loki, topic, [*same, row(topic, 3001)])
    found = comparison(served.config, topic)
    monkeypatch.setattr(diff_run, "SLOTS", 400)  # 3000 rows in at most 400 slots: several rows each
    left, right = diff_run.digest_sides(found, here)
    pairs = diff_run.differing_pairs(found, diff_run.differing(left, right))
    assert len(left.found) <= 400
    with ExitStack() as opened:
        again = [list(diff_run.read_part(pair.left, opened)) for pair in pairs]
    assert len(pairs) == 1
    assert sum(map(len, again)) < 3000 / 20


def test_the_span_and_the_newest_minutes(served: Deployment, topic: Topic, prod: HBase, loki: HBase) -> None:
    now = time.time_ns() // 1_000_000
    put(prod, topic, [row(topic, 1, at=START), row(topic, 2, at=START + HOUR), row(topic, 3, at=now - 60_000)])
    put(loki, topic, [row(topic, 2, at=START + HOUR), row(topic, 4, at=now - 600_000)])
    assert counts(compare(served.config, topic)) == (2, 2, 1, 1, 0)
    cut = comparison(served.config, topic, since="2026-10-24T01:00", until="2026-10-24T01:00:00.001")
    assert counts(diff(cut, here)) == (1, 1, 0, 0, 0)
    assert span_ms(None, "2999-01-01")[1] <= time.time_ns() // 1_000_000 - diff_run.NEWEST_MS
    with pytest.raises(ConfigError, match="five minutes"):
        span_ms("2999-01-01", None)


def test_a_cluster_is_not_compared_with_itself(served: Deployment, topic: Topic) -> None:
    with pytest.raises(ConfigError, match="itself"):
        comparison(served.config, topic, "prod", "prod")
    hbase = served.config.hbase
    twice = served.config.model_copy(update={"hbase": hbase.model_copy(update={"loki": hbase.prod})})
    with pytest.raises(ConfigError, match="one cluster"):
        comparison(twice, topic)


def test_a_cluster_that_is_away_is_no_difference(served: Deployment, topic: Topic) -> None:
    away = HBaseCluster(thrift="127.0.0.1:1", timeout_s=1)
    config = served.config.model_copy(update={"hbase": served.config.hbase.model_copy(update={"loki": away})})
    with pytest.raises(ServerUnavailable, match="loki"):
        compare(config, topic)


def archived_rows(config: Config, kafka: Kafka, topic: Topic) -> list[Row]:
    """The rows as serve makes them: of what Kafka holds, in its order."""
    assert topic.hbase
    info, found = kafka.describe(topic.name), []
    for partition, (since, until) in kafka.offsets(info).items():
        records = list(kafka.read(info, OffsetRange(partition, since, until), 1 << 20))
        for events in land_records(records, topic.make_codec(), info.topic_id, partition):
            decoded = events.filter(pc.equal(events.column("quality"), "ok"))
            found += rows(decoded, topic.hbase, topic.hbase.version("v1"))
    return found


@pytest.fixture
def filled(served: Deployment, topic: Topic, kafka: Kafka, prod: HBase, loki: HBase) -> Topic:
    """1,000 events in two partitions, archived in two batches and in both clusters; 100 of them came twice, and then
    with another value, and there are records that cannot be decoded."""
    kafka.create_topic(topic.name, 2, {})

    def valued(number: int, value: str) -> bytes:
        return event(f"id{number}", START + number * 1000).replace(b"}", b', "v": "%s"}' % value.encode())

    for partition in (0, 1):
        first = [(valued(n, "one"), AT + n) for n in range(partition, 1000, 2)]
        produce(served.config, topic.name, partition, [*first, (b"no event", AT)])
    archive(served.config, topic.name)
    again = [(valued(n, "two"), AT + 120_000) for n in range(0, 100, 2)]
    older = [(valued(n, "old"), AT - 120_000) for n in range(100, 200, 2)]
    produce(served.config, topic.name, 0, [*again, *again, *older])
    archive(served.config, topic.name)
    found = archived_rows(served.config, kafka, topic)
    assert (len(found), len(latest(found))) == (1150, 1000)
    for cluster in (prod, loki):
        put(cluster, topic, found)
    return topic


def test_the_archive_with_repeated_and_late_events(
    served: Deployment, filled: Topic, prod: HBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = served.config
    assert counts(compare(config, filled, "archive", "prod")) == (1000, 1000, 0, 0, 0)
    monkeypatch.setattr(diff_run, "CHUNK_RECORDS", 90)
    assert len(comparison(config, filled, "archive", "prod").chunks) > 8
    assert counts(compare(config, filled, "loki", "archive")) == (1000, 1000, 0, 0, 0)
    prod.delete(table_of(filled), [row(filled, 10).key], AT + 120_000)
    put(prod, filled, [row(filled, 5000), row(filled, 500, "changed", AT + 60_000)])
    assert counts(compare(config, filled, "archive", "prod")) == (1000, 1000, 1, 1, 1)


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_a_damaged_segment_is_no_difference(served: Deployment, filled: Topic, kafka: Kafka, damage: str) -> None:
    store, path = S3(served.config.s3), archive_path(kafka.cluster_id(), filled.name)
    found = comparison(served.config, filled, "archive", "prod")
    key = f"{path}/{found.left.segments[0].path}"
    data = store.get(key)
    store.delete(key)
    if damage == "corrupt":
        store.put(key, data[:-1] + b"?")
    with pytest.raises(VerificationFailed, match=damage):
        diff(found, here)


def repair(
    config: Config, topic: Topic, source: SideName, target: SideName, may_delete: bool = False
) -> tuple[dict[str, int], Comparison, object]:
    """Plans, executes; the plan's counts that are not 0, and what remains."""
    found = comparison(config, topic, source, target)
    plan, _ = plan_sync(found, may_delete, here)
    done, after = sync(found, may_delete, plan.digest, config.hbase, here)
    assert done == plan
    kinds = ("add", "replace", "delete", "only_in_target", "newer_in_target", "other_columns", "too_large")
    return {kind: getattr(plan, kind) for kind in kinds if getattr(plan, kind)}, found, after


def test_sync_from_the_archive_and_from_the_other_cluster(
    served: Deployment, filled: Topic, prod: HBase, loki: HBase
) -> None:
    """A lost table is refilled from the archive, a poisoned one is repaired from the other; cells are the same."""
    config, table = served.config, table_of(filled)
    right = dict(prod.scan(table))
    loki.delete_table(table)
    loki.create_table(table, "e")
    done, found, after = repair(config, filled, "archive", "loki")
    assert done == {"add": 1000}
    check_synced(found, after)
    assert dict(loki.scan(table)) == right, "timestamps too"

    poison = [row(filled, number, "poison", AT - 600_000) for number in range(5000, 5300)]
    prod.delete_table(table)
    prod.create_table(table, "e")
    changed = [Row(key, {b"e:v": b"poison"}, AT - 600_000) for key in sorted(right)[:50]]
    kept = [
        Row(key, {name: value for name, (value, _) in right[key].items()}, right[key][b"e:id"][1])
        for key in sorted(right)[50:900]
    ]
    put(prod, filled, [*poison, *changed, *kept])
    done, found, after = repair(config, filled, "loki", "prod")
    assert done == {"add": 100, "replace": 50, "only_in_target": 300}
    with pytest.raises(VerificationFailed, match="300 rows are only in the target: --delete"):
        check_synced(found, after)
    done, found, after = repair(config, filled, "loki", "prod", may_delete=True)
    assert done == {"delete": 300}
    check_synced(found, after)
    assert dict(prod.scan(table)) == right
    assert counts(compare(config, filled, "archive", "prod")) == (1000, 1000, 0, 0, 0)


def test_a_plan_that_is_out_of_date_is_refused(served: Deployment, topic: Topic, prod: HBase, loki: HBase) -> None:
    put(prod, topic, [row(topic, number) for number in range(10)])
    found = comparison(served.config, topic)
    plan, _ = plan_sync(found, False, here)
    assert plan.digest == plan_sync(comparison(served.config, topic), False, here)[0].digest
    assert plan.digest != plan_sync(found, True, here)[0].digest
    put(prod, topic, [row(topic, 3, "changed")])
    with pytest.raises(ConfigError, match="now make the plan"):
        sync(found, False, plan.digest, served.config.hbase, here)
    assert not list(loki.scan(table_of(topic)))


def test_newer_cells_in_the_target_stay(served: Deployment, topic: Topic, prod: HBase, loki: HBase) -> None:
    put(prod, topic, [row(topic, 1, "old"), row(topic, 2)])
    put(loki, topic, [row(topic, 1, "new", AT + 60_000)])
    done, found, after = repair(served.config, topic, "prod", "loki")
    assert done == {"add": 1, "newer_in_target": 1}
    assert loki.get(table_of(topic), [row(topic, 1).key])[row(topic, 1).key][b"e:v"] == (b"new", AT + 60_000)
    with pytest.raises(VerificationFailed, match="1 rows have newer cells in the target"):
        check_synced(found, after)


def test_rows_masked_by_delete_markers(served: Deployment, topic: Topic, prod: HBase, loki: HBase) -> None:
    put(prod, topic, [row(topic, number) for number in range(20)])
    loki.delete(table_of(topic), [row(topic, number).key for number in range(5)], AT + 60_000)
    _, found, after = repair(served.config, topic, "prod", "loki")
    with pytest.raises(VerificationFailed, match=r"5 rows are not as the source has them: delete markers .* major"):
        check_synced(found, after)


def test_the_commands(served: Deployment, topic: Topic, prod: HBase) -> None:
    put(prod, topic, [row(topic, number) for number in range(300)])
    done = job(served, "hbase_diff.py", topic.name)
    assert done.returncode == 12, done.stderr
    assert "2026-10-24T00:0" in done.stdout
    digest = plan_sync(comparison(served.config, topic), False, here)[0].digest
    done = job(served, "hbase_sync.py", topic.name, "--from", "prod", "--to", "loki", "--execute", digest)
    assert done.returncode == 0, done.stderr
    done = job(served, "hbase_diff.py", topic.name, "--json")
    assert (done.returncode, '"left_rows": 300, "right_rows": 300' in done.stdout) == (0, True), done.stderr


def job(served: Deployment, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = submit_command(served.config, script, [*arguments, "--config", str(served.path)])
    environment = submit_environment(served.config)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=180, check=False)
