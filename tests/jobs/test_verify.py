"""`lode verify archive` against a real store: each way in which the archive can differ is made and must be found."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from deployments import Deployment
from job_records import JSON_TOPIC, START, archive, event, here, produce

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.verify_run import VerifyReport, verify_archive
from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3

LOG = "_delta_log/{:020d}.json"


@dataclass(frozen=True)
class Archived:
    """A topic of two partitions, archived in two commits: versions 1 and 2 of its table."""

    config: Config
    topic: str
    path: str
    store: S3

    def verify(self, share: float = 1) -> VerifyReport:
        return verify_archive(self.config, self.topic, share, here)

    def problems(self) -> list[tuple[str, str]]:
        return [(problem.where, problem.problem) for problem in self.verify().problems]

    def segments(self) -> list[str]:
        stored = (entry.key.removeprefix(f"{self.path}/") for entry in self.store.list(f"{self.path}/"))
        return [name for name in stored if name.endswith(".parquet")]

    @contextmanager
    def changed(self, name: str, change: Callable[[bytes], bytes | None]) -> Iterator[None]:
        key = f"{self.path}/{name}"
        before = self.store.get(key)
        after = change(before or b"")
        try:
            if after is None:
                self.store.delete(key)
            else:
                self.store.put(key, after)
            yield
        finally:
            if before is None:
                self.store.delete(key)
            else:
                self.store.put(key, before)


@pytest.fixture
def archived(deployment: Deployment, kafka: Kafka) -> Archived:
    topic = deployment.declare("verify", JSON_TOPIC)
    kafka.create_topic(topic, 2)
    for batch in range(2):
        for partition in range(2):
            produce(
                deployment.config, topic, partition, [(event(f"{batch}-{i}", START + i), START + i) for i in range(50)]
            )
        archive(deployment.config, topic)
    store = S3(deployment.config.s3)
    return Archived(deployment.config, topic, archive_path(kafka.cluster_id(), topic), store)


def test_healthy_archive_has_no_problem(archived: Archived) -> None:
    report = archived.verify()
    assert report.problems == []
    assert (report.commits, report.segments, report.verified, report.records, report.compared) == (2, 4, 4, 200, 200)
    assert archived.verify(share=0.5).verified == 2


def test_damage_of_objects_is_found(archived: Archived) -> None:
    first = archived.segments()[0]
    with archived.changed(first, lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]):
        assert archived.problems() == [(first, "sha256 of the bytes differs from the commit's")]
    with archived.changed(first, lambda data: data[:-1]):
        ((where, problem),) = archived.problems()
        assert where == first
        assert "bytes instead of" in problem
    with archived.changed(first, lambda _: None):
        assert archived.problems() == [(first, "object is missing")]
    assert archived.problems() == []


def test_extra_objects_are_found(archived: Archived) -> None:
    first = archived.segments()[0]
    with archived.changed(f"{first}.copy", lambda _: b"x"):
        ((where, problem),) = archived.problems()
        assert where == f"{first}.copy"
        assert problem.startswith("extra object")
    with archived.changed(first.replace(".parquet", "00.parquet"), lambda _: b"x"):
        report = archived.verify()  # named like a segment: a killed run's, or a running one's
        assert (report.problems, report.leftovers) == ([], 1)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (rb"\"largest_record\":", rb"\"largest_record\":1", "largest record"),
        (rb"\"gaps\":[]", rb"\"gaps\":[[0,0,1]]", "is no gap"),
        (rb"\"records\":50", rb"\"records\":51", "records instead of 51"),
        (b'\\"numRecords\\": 50', b'\\"numRecords\\": 49', "num_records"),
        (b'"add":', b'"add";', "no Delta commit"),
    ],
)
def test_edited_commits_are_found(archived: Archived, version: int, old: bytes, new: bytes, found: str) -> None:
    def edit(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    with archived.changed(LOG.format(version), edit):
        problems = archived.problems()
    if version == 1 and b"numRecords" not in old and b"add" not in old:
        assert any("does not follow" in problem for _, problem in problems)
    else:
        assert any(found in problem for _, problem in problems)


def test_lost_commit_and_foreign_commit_are_found(archived: Archived) -> None:
    with archived.changed(LOG.format(1), lambda _: None):
        assert archived.problems() == [("_delta_log/", "commit files 1 to 1 are missing")]
    newest = archived.store.get(f"{archived.path}/{LOG.format(2)}") or b""
    actions = [json.loads(line) for line in newest.splitlines()]
    (add, *_) = [action["add"] for action in actions if "add" in action]
    foreign = json.dumps({"add": add | {"path": add["path"] + ".other"}}).encode()
    with archived.changed(LOG.format(3), lambda _: foreign):
        assert (
            add["path"] + ".other",
            "is a live file of the Delta table, but no Lode commit names it",
        ) in archived.problems()


def test_records_that_kafka_has_otherwise_are_found(archived: Archived, kafka: Kafka) -> None:
    before = kafka.describe(archived.topic)
    kafka.delete_records(archived.topic, {0: 70})
    report = archived.verify()
    assert (report.problems, report.compared) == ([], 130)
    kafka.delete_topic(archived.topic)
    report = archived.verify()
    assert (report.problems, report.compared) == ([], 0)
    assert "no such topic" in report.notes[0]
    after = kafka.create_topic(archived.topic, 2)
    assert after.topic_id != before.topic_id
    assert archived.verify().problems == []


def test_topic_without_archive_is_wrong_usage(deployment: Deployment, kafka: Kafka) -> None:
    topic = deployment.declare("verify-none")
    kafka.create_topic(topic, 1)
    with pytest.raises(ConfigError, match="has no archive"):
        verify_archive(deployment.config, topic, 1, here)


def test_command_ends_with_12_and_names_the_segment(archived: Archived, deployment: Deployment) -> None:
    first = archived.segments()[0]
    with archived.changed(first, lambda data: data[:-1]):
        done = deployment.lode("verify", "archive", archived.topic, "--json", check=12)
    result = json.loads(done.stdout)
    assert (result["segments"], result["verified"], result["records"]) == (4, 4, 150)
    assert result["problems"][0]["where"] == first
