"""Vacuum: removes what a killed run left behind, and nothing that any commit ever named.

A running batch writes its objects before it commits them. Age tells the two apart: no batch may take longer than the
safe age, so nothing younger is touched.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline_lib.archive.log import LOG, find_archive, kafka_if_up, read_log
from pipeline_lib.config import Config
from pipeline_lib.datasets import events_path
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.io.events_table import EventsTable, SparkSession
from pipeline_lib.io.s3 import S3, StoredObject
from pipeline_lib.log import fact


@dataclass(frozen=True)
class Unnamed:
    """A file that no commit names. `key` is relative to the bucket's prefix, or an HDFS path."""

    key: str
    bytes: int
    modified: datetime


def plan_vacuum(
    path: str, objects: Iterable[StoredObject], named: Collection[str], now: datetime, age: timedelta
) -> list[Unnamed]:
    """The objects of the table at `path` that no commit names and that are older than the safe age; never the log."""
    return [
        Unnamed(entry.key, entry.bytes, entry.modified)
        for entry in objects
        if entry.key.startswith(f"{path}/")
        and not entry.key.removeprefix(f"{path}/").startswith(LOG)
        and entry.key.removeprefix(f"{path}/") not in named
        and entry.modified < now - age
    ]


def vacuum_archive(config: Config, topic: str, age: timedelta, execute: bool, now: datetime) -> list[Unnamed]:
    """What was removed from the topic's archive, or without `execute` what would be.

    Raises:
        VerificationFailed: the log is damaged, so that what it names is not known; nothing was removed.
    """
    store = S3(config.s3)
    with kafka_if_up(config.kafka) as kafka:
        path = find_archive(config, kafka, topic)
    objects = list(store.list(f"{path}/"))
    if not objects:
        return []
    found = plan_vacuum(path, objects, _named(store, path), now, age)
    if not execute or not found:
        return found
    found = plan_vacuum(path, objects, _named(store, path), now, age)  # a long run may have committed meanwhile
    for entry in found:
        store.delete(entry.key)
        fact("removed", stage="archive", key=entry.key, bytes=entry.bytes)
    return found


def _named(store: S3, path: str) -> set[str]:
    log = read_log(store, path)
    if log.problems or not log.versions:
        problems = "; ".join(f"{where} {problem}" for where, problem in log.problems) or "no commit at all"
        raise VerificationFailed(f"archive {path}: {problems}: what its commits name is not known, nothing is removed")
    return log.added


def vacuum_events(config: Config, topic: str, hours: int, execute: bool, spark: SparkSession) -> list[Unnamed]:
    """As vacuum_archive, for the events table, by Delta's own VACUUM."""
    table = EventsTable(spark, events_path(config.hdfs, topic))
    if not table.exists:
        return []
    found = [Unnamed(file.path, file.bytes, file.modified) for file in table.unnamed_files(hours)]
    if execute and found:
        table.vacuum(hours)
        fact("removed", stage="land", files=len(found), bytes=sum(entry.bytes for entry in found))
    return found


def age_text(modified: datetime, now: datetime) -> str:
    """Days and hours since then."""
    hours = int((now - modified).total_seconds() // 3600)
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h"
