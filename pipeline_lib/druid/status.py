"""What Druid has of a datasource beside what its table has, and the compaction of small segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

from pipeline_lib.config import Config
from pipeline_lib.druid.chunks import Chunk, chunks_of, start_of, with_also
from pipeline_lib.druid.ledger import Ledger
from pipeline_lib.druid.load import ChunkLoad, rows_served
from pipeline_lib.druid.run import ETERNITY
from pipeline_lib.druid.sources import Source, druid_settings
from pipeline_lib.druid.spec import compaction_task
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.delta_files import live_files
from pipeline_lib.io.druid import Druid
from pipeline_lib.io.s3 import S3
from pipeline_lib.timespan import TimeSpan

SEGMENT_ROWS = 5_000_000
"""Rows that Druid puts into one segment by default."""


@dataclass(frozen=True)
class ChunkStatus:
    """A chunk in Druid and in its table. `state`: `loaded` (proved, and still what the table has), `changed`, `absent`,
    `expired` (`lode expire` has removed rows from the table; Druid keeps what it has), `differs` (queries find other
    rows than were proved), `foreign` (Lode has not loaded what is served)."""

    chunk: str
    state: str
    rows: int
    source_rows: int
    segments: int
    bytes: int
    compact: bool


def chunk_states(config: Config, source: Source) -> list[ChunkStatus]:
    """Every chunk that the table or Druid has."""
    druid, ledger = Druid(druid_settings(config)), Ledger(S3(config.s3), source.name)
    have = {
        start_of(source.declared, datetime.fromisoformat(segment.interval.partition("/")[0]))
        for segment in druid.segments(source.name, ETERNITY)
    }
    _, files, before = live_files(source.table)
    chunks = with_also(source.declared, chunks_of(source.declared, files, None), have)
    return [_state(druid, ledger, source, chunk, before) for chunk in chunks]


def compact_chunks(config: Config, source: Source, span: TimeSpan) -> list[str]:
    """Rewrites the chunks of a span that have more segments than their rows need, each proved like a load.

    Raises:
        VerificationFailed: queries found other rows afterwards; the segments before are served again.
    """
    druid, ledger = Druid(druid_settings(config)), Ledger(S3(config.s3), source.name)
    done = []
    for empty in chunks_of(source.declared, [], span):
        segments = _visible(druid, source.name, empty)
        if not _needs_compaction(druid, source.name, empty, segments):
            continue
        run = ChunkLoad(druid, source.name, empty)
        version = max(segments)
        stamp = "".join(letter for letter in version if letter.isalnum())
        made = run.rewrite(f"compact{stamp}", partial(compaction_task, name=source.name, interval=empty.interval))
        entry = ledger.read(empty.name)
        if entry.current and entry.current.version == version and made.version:
            ledger.compacted(empty.name, entry, made.version)
        done.append(empty.name)
    return done


def _state(druid: Druid, ledger: Ledger, source: Source, chunk: Chunk, before: date | None) -> ChunkStatus:
    versions = _visible(druid, source.name, chunk)
    rows = rows_served(druid, source.name, chunk.interval) if versions else 0
    current = ledger.read(chunk.name).current
    segments = [s for s in druid.segments(source.name, chunk.interval) if s.version in versions]
    word = "loaded"
    if not versions and chunk.files:
        word = "absent"
    elif versions and (current is None or current.version not in versions):
        word = "foreign"
    elif current and current.digest != chunk.digest(source.declared):
        word = "expired" if chunk.expired(before) else "changed"
    elif rows != chunk.rows:
        word = "differs"
    need = _needs_compaction(druid, source.name, chunk, versions)
    return ChunkStatus(chunk.name, word, rows, chunk.rows, len(segments), sum(s.bytes for s in segments), need)


def _visible(druid: Druid, name: str, chunk: Chunk) -> set[str]:
    return druid.served(name, chunk.interval)


def _needs_compaction(druid: Druid, name: str, chunk: Chunk, versions: set[str]) -> bool:
    segments = [s for s in druid.segments(name, chunk.interval) if s.version in versions]
    if len(segments) < 2:
        return False
    answer = druid.queries.timeseries(
        datasource=name, granularity="all", intervals=chunk.interval, aggregations={"stored": {"type": "count"}}
    )
    stored = sum(int(part["result"]["stored"]) for part in answer.result)
    return len(segments) > -(-stored // SEGMENT_ROWS)


def apply_rules(config: Config, source: Source, rules: Sequence[dict[str, object]], digest: str, asked: str) -> None:
    """Makes Druid keep the rules of the declaration. Raises ConfigError where they are not those that were looked at."""
    if asked != digest:
        raise ConfigError(f"--execute {asked}: the plan is now {digest}; look at it again before it is executed")
    Druid(druid_settings(config)).set_rules(source.name, rules)
