"""`lode vacuum` on real stores: removes exactly what no commit names and is old enough."""

import getpass
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from deployments import Deployment
from job_records import JSON_TOPIC, START, archive, event, here, produce

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.verify_run import verify_archive
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3, StoredObject
from pipeline_lib.stack.stack import Stack
from pipeline_lib.vacuum import age_text, plan_vacuum, vacuum_archive

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_plan_spares_the_log_the_named_the_young_and_other_tables() -> None:
    def stored(key: str, hours: float) -> StoredObject:
        return StoredObject(key, 1, NOW - timedelta(hours=hours))

    objects = [
        stored("archive/c/t/old.parquet", 25),
        stored("archive/c/t/young.parquet", 23),
        stored("archive/c/t/named.parquet", 25),
        stored("archive/c/t/_delta_log/0.json", 25),
        stored("archive/c/t2/old.parquet", 25),
    ]
    (found,) = plan_vacuum("archive/c/t", objects, {"named.parquet"}, NOW, DAY)
    assert found.key == "archive/c/t/old.parquet"


def test_ages_are_readable() -> None:
    assert age_text(NOW - timedelta(hours=5), NOW) == "5 h"
    assert age_text(NOW - timedelta(hours=53), NOW) == "2 d 5 h"


@pytest.fixture
def topic(deployment: Deployment, kafka: Kafka) -> str:
    topic = deployment.declare("vacuum", JSON_TOPIC)
    kafka.create_topic(topic, 1)
    produce(deployment.config, topic, 0, [(event(str(i), START + i), START + i) for i in range(20)])
    archive(deployment.config, topic)
    return topic


def keys(store: S3, path: str) -> set[str]:
    return {entry.key for entry in store.list(f"{path}/")}


def test_archive_loses_only_the_leftover(deployment: Deployment, kafka: Kafka, topic: str) -> None:
    config, path = deployment.config, archive_path(kafka.cluster_id(), topic)
    store, later = S3(config.s3), datetime.now(UTC) + timedelta(hours=30)
    before = keys(store, path)
    (segment,) = (key for key in before if key.endswith(".parquet"))
    store.put(f"{segment}.left", b"12345")
    assert vacuum_archive(config, topic, DAY, execute=True, now=datetime.now(UTC)) == []
    (found,) = vacuum_archive(config, topic, DAY, execute=False, now=later)
    assert (found.key, found.bytes) == (f"{segment}.left", 5)
    assert keys(store, path) == {*before, found.key}
    assert vacuum_archive(config, topic, DAY, execute=True, now=later) == [found]
    assert keys(store, path) == before
    assert verify_archive(config, topic, 1, here).problems == []


def test_nothing_is_removed_where_the_log_is_damaged(deployment: Deployment, kafka: Kafka, topic: str) -> None:
    path = archive_path(kafka.cluster_id(), topic)
    store = S3(deployment.config.s3)
    store.delete(f"{path}/_delta_log/{1:020d}.json")
    store.put(f"{path}/_delta_log/{2:020d}.json", b"{}")
    before = keys(store, path)
    later = datetime.now(UTC) + timedelta(hours=30)
    with pytest.raises(VerificationFailed, match="nothing is removed"):
        vacuum_archive(deployment.config, topic, DAY, execute=True, now=later)
    assert keys(store, path) == before


def test_command_removes_old_files_of_both_stores(
    deployment: Deployment, kafka: Kafka, topic: str, stack: Stack
) -> None:
    deployment.lode("land", topic)
    path = archive_path(kafka.cluster_id(), topic)
    store = S3(deployment.config.s3)
    before = keys(store, path)
    store.put(f"{path}/old.parquet", b"12345")
    store.put(f"{path}/young.parquet", b"12345")
    (on_disk,) = Path(stack.home).rglob("*/old.parquet")
    then = time.time() - 3 * 86400
    os.utime(on_disk, (then, then))
    hdfs = f"{web(stack)}/webhdfs/v1{deployment.config.hdfs.root}/landing/{topic}"
    user = {"user.name": getpass.getuser()}
    for name, age_days in (("left.parquet", 3), ("new.parquet", 0)):
        requests.put(f"{hdfs}/{name}", params={"op": "CREATE", **user}, data=b"123", timeout=30).raise_for_status()
        at = int((time.time() - age_days * 86400) * 1000)
        times = {"op": "SETTIMES", "modificationtime": str(at), **user}
        requests.put(f"{hdfs}/{name}", params=times, timeout=30).raise_for_status()
    listed = json.loads(deployment.lode("vacuum", topic, "--json").stdout)
    removed = json.loads(deployment.lode("vacuum", topic, "--execute", "--json").stdout)
    for result in (listed, removed):
        assert [entry["key"] for entry in result["archive"]] == [f"{path}/old.parquet"]
        assert [Path(entry["key"]).name for entry in result["events"]] == ["left.parquet"]
        assert (result["files"], result["bytes"]) == (2, 8)
    assert (listed["removed"], removed["removed"]) == (False, True)
    assert keys(store, path) == {*before, f"{path}/young.parquet"}
    statuses = requests.get(hdfs, params={"op": "LISTSTATUS", **user}, timeout=30).json()["FileStatuses"]["FileStatus"]
    names = {status["pathSuffix"] for status in statuses}
    assert "new.parquet" in names
    assert "left.parquet" not in names


def web(stack: Stack) -> str:
    address = json.loads((Path(stack.home) / "state.json").read_text())["endpoints"]["hdfs.web"]
    return address if address.startswith("http") else f"http://{address}"
