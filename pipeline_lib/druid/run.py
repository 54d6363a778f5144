"""HDFS -> Druid: the load of a span, or of what changed, chunk by chunk."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pipeline_lib.config import Config
from pipeline_lib.druid.chunks import Chunk, chunks_of, start_of, with_also
from pipeline_lib.druid.ledger import Entry, Ledger, Load
from pipeline_lib.druid.load import ChunkLoad, rows_served, serves
from pipeline_lib.druid.sources import Source, druid_settings
from pipeline_lib.druid.spec import Way, ingestion_task, way_for
from pipeline_lib.druid.staging import stage_json
from pipeline_lib.errors import ConfigError, LodeError
from pipeline_lib.io.delta_files import live_files
from pipeline_lib.io.druid import Druid
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact
from pipeline_lib.timespan import TimeSpan

ETERNITY = "0001-01-01/9999-01-01"


@dataclass(frozen=True)
class Loaded:
    """What became of one chunk: `loaded`, `already` (it was, and is served), `emptied` or `failed`."""

    chunk: str
    outcome: str
    rows: int
    task: str = ""
    error: str = ""


class EmptySource(LodeError):
    """The table holds nothing of the span, and Druid does."""


def ingest(
    config: Config, source: Source, span: TimeSpan | None, changed: bool, allow_empty: bool
) -> tuple[list[Loaded], LodeError | None]:
    """Loads each chunk of the span or, with `changed`, each whose files are not those that Druid serves.

    Returns:
        What became of each chunk, and the worst error: the other chunks are loaded all the same.

    Raises:
        EmptySource: nothing would be left of what Druid has, and `allow_empty` does not say that this is meant.
    """
    druid, ledger = Druid(druid_settings(config)), Ledger(S3(config.s3), source.name)
    version, files, expired_before = live_files(source.table)
    chunks = chunks_of(source.declared, files, span)
    if changed:
        chunks = unexpired(changed_chunks(druid, ledger, source, chunks, span), expired_before)
    elif not allow_empty:
        check_unexpired(source, chunks, expired_before)
    check_kept(source, chunks, datetime.now(UTC))
    if chunks and not files_of(chunks) and not allow_empty and (span or not files):
        raise EmptySource(
            f"{source.table} (version {version}) has no rows for {source.name} from {chunks[0].since} until"
            f" {chunks[-1].until}: nothing was loaded; --allow-empty empties that span in Druid"
        )
    way = way_for(druid.extensions())
    fact("ingesting", datasource=source.name, version=version, chunks=len(chunks), way=way)
    errors: list[LodeError] = []

    def load(chunk: Chunk) -> Loaded:
        try:
            return load_chunk(config, druid, ledger, source, chunk, way, allow_empty)
        except LodeError as error:
            errors.append(error)
            fact("chunk_failed", datasource=source.name, chunk=chunk.name, error=error)
            return Loaded(chunk.name, "failed", chunk.rows, error=str(error))

    with ThreadPoolExecutor(druid.settings.tasks_at_once) as pool:
        try:
            done = list(pool.map(load, chunks))
        except BaseException:  # Ctrl-C: the pool's end waits for the loads that run, up to task_timeout_s
            druid.given_up.set()
            raise
    return done, max(errors, key=lambda error: error.exit_code, default=None)


def load_chunk(
    config: Config, druid: Druid, ledger: Ledger, source: Source, chunk: Chunk, way: Way, allow_empty: bool = False
) -> Loaded:
    """Loads and proves one chunk, unless Druid serves this very load already.

    Raises:
        EmptySource: the table has nothing of the chunk, which may be its loss, and `allow_empty` does not say otherwise.
        LodeError: what ChunkLoad.run raises.
    """
    digest, entry = chunk.digest(source.declared), ledger.read(chunk.name)
    if is_current(druid, source.name, chunk, entry, digest):
        return Loaded(chunk.name, "already", chunk.rows, entry.current.task if entry.current else "")
    run = ChunkLoad(druid, source.name, chunk)
    if not chunk.files and not run.before:
        return Loaded(chunk.name, "already", 0)
    if not chunk.files and not allow_empty:
        raise EmptySource(
            f"{source.name} {chunk.name}: Druid has rows and {source.table} has none (was it lost?): Druid keeps them;"
            " --allow-empty empties the chunk"
        )
    with stage_json(config, source.declared, chunk, f"{source.name}_{chunk.name}_{digest}", way) as uris:
        made = run.run(digest, lambda task: ingestion_task(task, source.name, source.declared, chunk, way, uris))
    load = Load(made.version or "", digest, chunk.rows, made.task)
    ledger.write(chunk.name, entry.loaded(load, run.version_before))
    return Loaded(chunk.name, "loaded" if chunk.files else "emptied", chunk.rows, made.task)


def unexpired(chunks: Sequence[Chunk], before: date | None) -> list[Chunk]:
    """Druid keeps what it has of days that `lode expire` has removed from the table, until its own rules drop them."""
    left = [chunk for chunk in chunks if not chunk.expired(before)]
    if len(left) < len(chunks):
        fact("expired_chunks_left_as_they_are", chunks=len(chunks) - len(left), before=before)
    return left


def check_unexpired(source: Source, chunks: Sequence[Chunk], before: date | None) -> None:
    """Raises ConfigError for a chunk that would be replaced by what is left of it."""
    if gone := [chunk.name for chunk in chunks if chunk.expired(before)]:
        raise ConfigError(
            f"{source.name}: {gone[0]} is a day that `lode expire` has removed from {source.table} (all before {before}):"
            f" nothing was loaded; name a --since from {before} on, or make Druid have what is left with --allow-empty"
        )


def is_current(druid: Druid, name: str, chunk: Chunk, entry: Entry, digest: str) -> bool:
    """Whether the broker answers from the version that the ledger has for this digest, with all its rows."""
    if entry.current is None or entry.current.digest != digest:
        return False
    versions = {entry.current.version} if chunk.rows else set()
    return serves(druid, name, chunk.interval, versions) and rows_served(druid, name, chunk.interval) == chunk.rows


def changed_chunks(
    druid: Druid, ledger: Ledger, source: Source, chunks: Sequence[Chunk], span: TimeSpan | None
) -> list[Chunk]:
    """Of all chunks that the table or Druid has, those whose files or version are not what was proved last."""
    versions = newest_versions(druid, source, span)
    entries = {name: ledger.read(name) for name in {*ledger.chunks(), *(chunk.name for chunk in chunks)}}
    recorded = (datetime.fromisoformat(name).replace(tzinfo=UTC) for name in entries)
    within = (at for at in {*versions, *recorded} if span is None or span.since <= at < span.until)
    every = with_also(source.declared, chunks, within)
    kept = [
        chunk for chunk in every if source.declared.keep_days is None or chunk.until > oldest(source, datetime.now(UTC))
    ]
    return [chunk for chunk in kept if _differs(source, chunk, entries.get(chunk.name, Entry()), versions)]


def newest_versions(druid: Druid, source: Source, span: TimeSpan | None) -> Mapping[datetime, str]:
    """The newest version that counts of each chunk that Druid has."""
    found: dict[datetime, str] = {}
    interval = f"{span.since:%Y-%m-%dT%H:%M:%S}/{span.until:%Y-%m-%dT%H:%M:%S}" if span else ETERNITY
    for segment in druid.segments(source.name, interval):
        at = start_of(source.declared, datetime.fromisoformat(segment.interval.partition("/")[0]))
        found[at] = max(segment.version, found.get(at, ""))
    return found


def files_of(chunks: Sequence[Chunk]) -> bool:
    return any(chunk.files for chunk in chunks)


def oldest(source: Source, now: datetime) -> datetime:
    return now - timedelta(days=source.declared.keep_days or 0)


def check_kept(source: Source, chunks: Sequence[Chunk], now: datetime) -> None:
    """Raises ConfigError for a chunk that the retention rules drop: it would never be served."""
    if source.declared.keep_days is None:
        return
    if gone := [chunk.name for chunk in chunks if chunk.until <= oldest(source, now)]:
        raise ConfigError(
            f"{source.name}: {gone[0]} is older than keep_days = {source.declared.keep_days}: Druid drops it"
        )


def summary(source: Source, done: Sequence[Loaded]) -> dict[str, Any]:
    """The run as one JSON value."""
    outcomes = [chunk.outcome for chunk in done]
    counted = {word: outcomes.count(word) for word in ("loaded", "already", "emptied", "failed")}
    rows = sum(chunk.rows for chunk in done if chunk.outcome != "failed")
    return {"datasource": source.name, **counted, "rows": rows, "chunks": list(map(asdict, done))}


def _differs(source: Source, chunk: Chunk, entry: Entry, versions: Mapping[datetime, str]) -> bool:
    digest, served = chunk.digest(source.declared), versions.get(chunk.since)
    if digest == entry.rejected:
        return False
    if entry.current is None:
        return bool(chunk.files) or served is not None
    if not chunk.files and served is None:
        return False
    return entry.current.digest != digest or entry.current.version != served
