"""What was proved of each chunk: s3://.../druid/DATASOURCE/CHUNK.json.

It only counts while Druid serves the version that it names, so it cannot be wrong about what is there: a lost ledger, a
lost Druid or a load by somebody else make a chunk "changed", and it is loaded again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pipeline_lib.io.s3 import S3

KEPT = 10
"""Earlier loads of a chunk that are remembered for a rollback."""


@dataclass(frozen=True)
class Load:
    """One version of a chunk. `rows`, `digest` and `task` are empty for one that Lode replaced and had not made."""

    version: str
    digest: str = ""
    rows: int = 0
    task: str = ""


@dataclass(frozen=True)
class Entry:
    """The loads of a chunk, the newest first; `rejected`: the digest that was rolled back and is not loaded by itself."""

    loads: Sequence[Load] = ()
    rejected: str = ""

    @property
    def current(self) -> Load | None:
        return self.loads[0] if self.loads else None

    def loaded(self, load: Load, before: str | None) -> "Entry":
        """After a load; `before`: the version that it replaced, where there was one."""
        older = [known for known in self.loads if known.version < load.version]
        if before and before not in {known.version for known in older}:
            older = sorted([*older, Load(before)], key=lambda known: known.version, reverse=True)
        return Entry((load, *older)[:KEPT])

    def rolled_back(self, version: str) -> "Entry":
        """After a rollback to a version."""
        rejected = self.current.digest if self.current else ""
        return Entry([known for known in self.loads if known.version <= version], rejected)


class Ledger:
    """The entries of one datasource."""

    def __init__(self, store: S3, datasource: str) -> None:
        self._store, self._folder = store, f"druid/{datasource}/"

    def read(self, chunk: str) -> Entry:
        data = self._store.get(f"{self._folder}{chunk}.json")
        if data is None:
            return Entry()
        values = json.loads(data)
        return Entry([Load(**load) for load in values["loads"]], values["rejected"])

    def write(self, chunk: str, entry: Entry) -> None:
        values = {"format": 1, "loads": [asdict(load) for load in entry.loads], "rejected": entry.rejected}
        self._store.put(f"{self._folder}{chunk}.json", json.dumps(values).encode())

    def compacted(self, chunk: str, entry: Entry, version: str) -> None:
        """The same rows are now served as another version."""
        if entry.current:
            self.write(chunk, replace(entry, loads=(replace(entry.current, version=version), *entry.loads[1:])))

    def chunks(self) -> list[str]:
        names = (entry.key.removeprefix(self._folder) for entry in self._store.list(self._folder))
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))
