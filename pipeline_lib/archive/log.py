"""The archive's Delta log as objects: for verification and clean-up, which may not trust a reader to notice damage.

A Delta reader starts at the newest checkpoint and opens no older commit, so it does not see that one was lost. Here
every commit file is read: its number, and the paths that it ever added.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline_lib.archive.commits import ArchiveCommit, archive_path, chain_app_id, check_contiguous, read_chain
from pipeline_lib.config import Config, KafkaSettings
from pipeline_lib.errors import ConfigError, ServerUnavailable
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact

LOG = "_delta_log/"
_COMMIT = re.compile(r"(\d{20})\.json")


@dataclass
class LogReading:
    """`added`: the path of every object that any commit, Lode's or another's, made part of the table."""

    versions: int = 0
    added: set[str] = field(default_factory=set)
    problems: list[tuple[str, str]] = field(default_factory=list)


def parse_log(files: Iterable[tuple[str, bytes]]) -> LogReading:
    """Reads commit files, given as (name, bytes) in the order of their names; says which are missing or damaged."""
    log = LogReading()
    for name, data in files:
        number = int(name.removesuffix(".json"))
        if number != log.versions:
            log.problems.append((LOG, f"commit files {log.versions} to {number - 1} are missing"))
        log.versions = number + 1
        try:
            actions = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
            log.added |= {action["add"]["path"] for action in actions if "add" in action}
        except (ValueError, KeyError, TypeError) as error:
            log.problems.append((LOG + name, f"is no Delta commit: {error}"))
    return log


def read_log(store: S3, path: str) -> LogReading:
    folder = f"{path}/{LOG}"
    names = sorted(entry.key.removeprefix(folder) for entry in store.list(folder))
    commits = [name for name in names if _COMMIT.fullmatch(name)]
    return parse_log((name, store.get(folder + name) or b"") for name in commits)


@contextmanager
def kafka_if_up(settings: KafkaSettings) -> Iterator[Kafka | None]:
    """Kafka, or None where it does not answer: the archive has to be of use just then."""
    try:
        kafka = Kafka(settings)
    except ServerUnavailable as error:
        fact("kafka_unavailable", error=error)
        yield None
        return
    with kafka:
        yield kafka


def find_archive(config: Config, kafka: Kafka | None, topic: str) -> str:
    """The path of a topic's archive. Without Kafka, which knows its cluster's id, the only one there is.

    Raises:
        ConfigError: without Kafka, no cluster or several have an archive of the topic.
    """
    if kafka:
        return archive_path(kafka.cluster_id(), topic)
    store = S3(config.s3)
    clusters = [name for name in store.folders("archive/") if topic in store.folders(f"archive/{name}/")]
    if len(clusters) != 1:
        raise ConfigError(f"Kafka does not answer, and {len(clusters)} clusters have an archive of topic {topic!r}")
    return archive_path(clusters[0], topic)


def read_archive(config: Config, kafka: Kafka | None, topic: str) -> tuple[str, list[ArchiveCommit]]:
    """The path of a topic's archive and its commits, checked against each other; no commits where it has none.

    Raises:
        ConfigError: see find_archive.
        VerificationFailed: the commit chain is broken.
    """
    path = find_archive(config, kafka, topic)
    return path, read_commits(ArchiveTable(config.s3, path))


def read_commits(table: ArchiveTable) -> list[ArchiveCommit]:
    """A table's commits, oldest first. Raises VerificationFailed where the chain is broken."""
    commits = read_chain(table.commits(), table.progress({0: chain_app_id()}).get(0))
    check_contiguous(commits)
    return commits
