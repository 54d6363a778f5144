"""What Lode keeps in a cluster about itself: table `lode`, one row a fact.

Progress stands beside the data that it covers, so each cluster has its own and a cluster that is restored from a backup
goes on where the backup ends. What is known of a cluster while it is away stands in the other one.
"""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from pipeline_lib.errors import LostRace
from pipeline_lib.hbase.mapping import HBaseMapping
from pipeline_lib.io.hbase import HBase

TABLE = "lode"
_VALUE = b"s:value"


class State:
    """The facts in one cluster."""

    def __init__(self, cluster: HBase) -> None:
        self._cluster = cluster

    def create(self) -> None:
        """Makes the table where it is not there; of two that make it at once both end with the same one."""
        if TABLE not in self._cluster.tables():
            self._cluster.create_table(TABLE, "s")

    def progress(self, table: str, app_ids: Mapping[int, str]) -> dict[int, int]:
        """Next offset of each partition that was ever served to the table."""
        found = {p: self._get(_progress_key(table, app)) for p, app in app_ids.items()}
        return {p: int(value) for p, value in found.items() if value is not None}

    def move(self, table: str, app: str, before: int | None, until: int) -> None:
        """Moves the progress of a partition. Raises LostRace where another run moved it meanwhile."""
        key, old = _progress_key(table, app).encode(), None if before is None else str(before).encode()
        if not self._cluster.put_if(TABLE, key, _VALUE, str(until).encode(), old):
            raise LostRace(f"HBase {self._cluster.name}: a concurrent run served {app} to table {table} first")

    def note(self, cluster: str, name: str) -> str | None:
        """What is known of a cluster, this or the other one: `diverged_since`, `maintenance`."""
        return self._get(_note_key(cluster, name))

    def set_note(self, cluster: str, name: str, value: str | None) -> None:
        """Notes it, or with None takes it back."""
        key = _note_key(cluster, name)
        if value is not None:
            self._put(key, value)
        elif self._get(key) is not None:
            self._put(key, "")

    def served(self, topic: str, mapping: HBaseMapping) -> list[str]:
        """The versions that serve writes: the first declared, until a migration adds another."""
        value = self._get(f"served|{topic}")
        return list(json.loads(value)) if value else [next(iter(mapping.versions))]

    def set_served(self, topic: str, versions: list[str]) -> None:
        self._put(f"served|{topic}", json.dumps(versions))

    def read(self, topic: str, mapping: HBaseMapping) -> str:
        """The version that readers take."""
        return self._get(f"read|{topic}") or next(iter(mapping.versions))

    def set_read(self, topic: str, version: str) -> None:
        self._put(f"read|{topic}", version)

    def _get(self, key: str) -> str | None:
        """None where the fact is not there, or was taken back."""
        cells = self._cluster.get(TABLE, [key.encode()]).get(key.encode(), {})
        return cells[_VALUE][0].decode() or None if _VALUE in cells else None

    def _put(self, key: str, value: str) -> None:
        self._cluster.put(TABLE, [(key.encode(), {_VALUE: value.encode()})], int(time.time() * 1000))


def _progress_key(table: str, app: str) -> str:
    return f"progress|{table}|{app}"


def _note_key(cluster: str, name: str) -> str:
    return f"cluster|{cluster}|{name}"


def moment() -> str:
    """Now, as notes tell it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
