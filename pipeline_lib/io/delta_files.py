"""A Delta table's live files, by delta-rs: no JVM is needed to know what a version consists of."""

from datetime import date
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipeline_lib.druid.chunks import SourceFile
from pipeline_lib.errors import ConfigError, ServerUnavailable

_UNSUPPORTED = {"deletionVectors": "rows of its files are marked deleted", "columnMapping": "its columns are renamed"}


def live_files(url: str) -> tuple[int, list[SourceFile]]:
    """The version of a table partitioned by date, and its files; of an events table those of decoded events.

    Raises:
        ConfigError: there is no such table, or its files are not what its log counts.
    """
    try:
        table = DeltaTable(url)
        features = set(table.protocol().reader_features or ())
        if found := features & set(_UNSUPPORTED):
            why = " and ".join(_UNSUPPORTED[feature] for feature in sorted(found))
            raise ConfigError(f"table {url}: {why}: Druid would read other rows; rewrite it without {sorted(found)}")
        rows = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        return table.version(), [_file(url, row) for row in rows if row.get("partition.quality", "ok") == "ok"]
    except TableNotFoundError:
        raise ConfigError(f"there is no table {url}: land or analyse first") from None
    except (DeltaError, OSError) as error:
        raise ServerUnavailable(f"table {url}: {error}") from None


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
