"""A Delta table's live files, by delta-rs: no JVM is needed to know what a version consists of."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import date
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipeline_lib.druid.chunks import SourceFile
from pipeline_lib.errors import ConfigError, ServerUnavailable
from pipeline_lib.landing.expiry import EXPIRY, expired_before

T = TypeVar("T")

ANSWER_S = 300
"""How long the log of a table may take to be read: one of 10,000 commits takes seconds."""
_UNSUPPORTED = {"deletionVectors": "rows of its files are marked deleted", "columnMapping": "its columns are renamed"}


class LiveTable(NamedTuple):
    """One version of a table and its files. `expired_before`: `lode expire` has removed rows of the days before it."""

    version: int
    files: list[SourceFile]
    expired_before: date | None


def live_files(url: str) -> LiveTable:
    """The newest version of a table partitioned by date; of an events table the files of decoded events.

    Raises:
        ConfigError: there is no such table, or its files are not what its log counts.
        ServerUnavailable: HDFS does not answer.
    """
    try:
        return _within(ANSWER_S, partial(_live_files, url))
    except TableNotFoundError:
        raise ConfigError(f"there is no table {url}: land or analyse first") from None
    except TimeoutError:
        raise ServerUnavailable(f"table {url}: HDFS did not answer within {ANSWER_S} s") from None
    except (DeltaError, OSError) as error:
        raise ServerUnavailable(f"table {url}: {error}") from None


def _live_files(url: str) -> LiveTable:
    table = DeltaTable(url)
    features = set(table.protocol().reader_features or ())
    if found := features & set(_UNSUPPORTED):
        why = " and ".join(_UNSUPPORTED[feature] for feature in sorted(found))
        raise ConfigError(f"table {url}: {why}: Druid would read other rows; rewrite it without {sorted(found)}")
    rows = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    files = [_file(url, row) for row in rows if row.get("partition.quality", "ok") == "ok"]
    return LiveTable(table.version(), files, expired_before(table.transaction_version(EXPIRY)))


def _within(seconds: float, work: Callable[[], T]) -> T:
    """What work returns or raises. It runs in a thread that is left behind when the time is up: delta-rs waits for a
    silent HDFS without end (hdfs-native 0.13 sets no time-outs), and takes no signal meanwhile, Ctrl-C neither."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result(timeout=seconds)


def _file(url: str, row: dict[str, Any]) -> SourceFile:
    day = row.get("partition.date")
    if day is None:
        raise ConfigError(f"table {url} is not partitioned by date, or a partition has none: {row['path']}")
    hour = row.get("partition.hour")
    return SourceFile(
        f"{url.rstrip('/')}/{row['path']}",
        row["num_records"],
        row["size_bytes"],
        day if isinstance(day, date) else date.fromisoformat(str(day)),
        None if hour is None else int(hour),
    )
