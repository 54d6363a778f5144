"""Time chunks: a datasource is loaded, proved and taken back one segment granule at a time, as Druid replaces it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from pipeline_lib.druid.declaration import Datasource
from pipeline_lib.errors import ConfigError
from pipeline_lib.timespan import TimeSpan

FORMAT = 1
"""Grows when the same files would be loaded otherwise: every chunk then counts as changed."""


@dataclass(frozen=True)
class SourceFile:
    """A Parquet file of one version of a Delta table. `rows`: None where the table's log does not say."""

    uri: str
    rows: int | None
    bytes: int
    date: date
    hour: int | None = None


@dataclass(frozen=True)
class Chunk:
    """One granule of a datasource and the files with exactly its rows."""

    since: datetime
    until: datetime
    files: Sequence[SourceFile] = field(default=())

    @property
    def rows(self) -> int:
        return sum(file.rows or 0 for file in self.files)

    def expired(self, before: date | None) -> bool:
        """Whether it is of a day before the one up to which the table's days have expired, if any have."""
        return before is not None and self.since.date() < before

    @property
    def interval(self) -> str:
        return "/".join(at.strftime("%Y-%m-%dT%H:%M:%S.000Z") for at in (self.since, self.until))

    @property
    def name(self) -> str:
        return self.since.strftime("%Y-%m-%dT%H")

    def digest(self, datasource: Datasource) -> str:
        """What the chunk is loaded from and how: the same digest is the same load."""
        files = sorted((file.uri.split("://")[-1].partition("/")[2], file.rows, file.bytes) for file in self.files)
        text = json.dumps([FORMAT, datasource.model_dump(exclude={"keep_days", "datasource"}), files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def chunks_of(datasource: Datasource, files: Iterable[SourceFile], span: TimeSpan | None) -> list[Chunk]:
    """The chunks of a span with their files, those without a file too; without a span those that have files.

    Raises:
        ConfigError: the span cuts a chunk, or a file's rows belong to several or are not counted.
    """
    by_start: dict[datetime, list[SourceFile]] = {}
    for file in files:
        if file.rows is None:
            raise ConfigError(f"{file.uri}: the table's log does not say how many rows it has: a load cannot be proved")
        by_start.setdefault(_start(datasource, file), []).append(file)
    starts = sorted(by_start) if span is None else _starts(datasource, span)
    return [Chunk(at, at + datasource.step, tuple(by_start.get(at, ()))) for at in starts]


def with_also(datasource: Datasource, chunks: Sequence[Chunk], others: Iterable[datetime]) -> list[Chunk]:
    """The chunks, and empty ones for the other starts: what Druid has and the table has not."""
    known: Mapping[datetime, Chunk] = {chunk.since: chunk for chunk in chunks}
    every = {at: known.get(at) or Chunk(at, at + datasource.step) for at in {*known, *others}}
    return [every[at] for at in sorted(every)]


def start_of(datasource: Datasource, at: datetime) -> datetime:
    """The start of the chunk that a time is in."""
    day = datetime.combine(at.date(), time(), UTC)
    return day + (at - day) // datasource.step * datasource.step


def task_id(name: str, chunk: Chunk, digest: str, attempt: int) -> str:
    """The same for every run of the same load, so that Druid itself refuses to carry it out twice."""
    return f"lode_{name}_{chunk.since:%Y%m%dT%H}_{digest}_{attempt}"


def _start(datasource: Datasource, file: SourceFile) -> datetime:
    if datasource.segment_granularity == "hour" and file.hour is None:
        raise ConfigError(f"{file.uri}: the table is partitioned by date only: segment_granularity has to be day")
    hour = file.hour or 0 if datasource.segment_granularity == "hour" else 0
    return datetime.combine(file.date, time(hour), UTC)


def _starts(datasource: Datasource, span: TimeSpan) -> list[datetime]:
    for at in (span.since, span.until):
        if start_of(datasource, at) != at:
            word = datasource.segment_granularity
            raise ConfigError(f"{at.isoformat()} is inside a {word}; a {word} is replaced whole: name its start or end")
    return [part.since for part in span.chunks(timedelta(seconds=datasource.step.total_seconds()))]
