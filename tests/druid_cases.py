"""A datasource of a test's own and the Delta table that it is loaded from, written by delta-rs: no JVM is needed.

It is written on this machine and copied to HDFS: delta-rs waits for an HDFS that does not answer without end, and takes
no signal meanwhile, so that a test would have no time limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deployments import Deployment

from pipeline_lib.config import Config
from pipeline_lib.druid.load import rows_served
from pipeline_lib.druid.run import Loaded, ingest
from pipeline_lib.druid.sources import Source, find_source
from pipeline_lib.io.druid import Druid
from pipeline_lib.io.webhdfs import WebHdfs
from pipeline_lib.landing.expiry import EXPIRY, to_version
from pipeline_lib.timespan import TimeSpan

FIRST = date(2026, 11, 1)
TOML = """codec = "raw"
[druid]
time = "event_time"
query_granularity = "hour"
dimensions = ["experiment", "holdback"]
[druid.metrics]
revenue = { kind = "long_sum" }
visitors = { kind = "theta", field = "visitor", size = 4096 }
"""


@dataclass(frozen=True)
class Case:
    deployment: Deployment
    config: Config
    source: Source
    druid: Druid
    _copied: set[Path] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def files(self) -> WebHdfs:
        assert self.config.hdfs.web
        return WebHdfs(self.config.hdfs.web, 30)

    @property
    def _local(self) -> Path:
        return self.deployment.path.parent / "tables" / self.name

    def paths(self) -> set[str]:
        """The paths on HDFS of the files of the table's newest version."""
        names = DeltaTable(self._local).file_uris() if self._copied else []
        return {self._path(Path(name)) for name in names}

    def _path(self, file: Path) -> str:
        return f"{urlsplit(self.source.table).path}/{file.relative_to(self._local)}"

    def _copy(self) -> None:
        """What is new, to HDFS; the log last."""
        new = {path for path in self._local.rglob("*") if path.is_file()} - self._copied
        for file in sorted(new, key=lambda path: (path.parent.name == "_delta_log", path)):
            self.files.write(self._path(file), file.read_bytes())
        self._copied.update(new)

    def write(self, day: int, rows: int = 100, revenue: int = 1, table: pa.Table | None = None) -> None:
        """Adds a file of rows to a day of the table."""
        properties = WriterProperties(compression="SNAPPY")
        table = events(FIRST + timedelta(days=day), rows, revenue) if table is None else table
        write_deltalake(
            self._local, table, mode="append", partition_by=["quality", "date"], writer_properties=properties
        )
        self._copy()

    def replace(self, day: int, rows: int, revenue: int = 1) -> None:
        """Makes the day consist of other rows, or of none."""
        DeltaTable(self._local).delete(f"date = '{FIRST + timedelta(days=day)}'")
        self._copy()
        if rows:
            self.write(day, rows, revenue)

    def expire(self, day: int, before: int) -> None:
        """Removes the rows of a day as `lode expire` does that removes all days before another."""
        moved = Transaction(EXPIRY, to_version(FIRST + timedelta(days=before)))
        properties = CommitProperties(app_transactions=[moved])
        DeltaTable(self._local).delete(f"date = '{FIRST + timedelta(days=day)}'", commit_properties=properties)
        self._copy()

    def load(self, since: int = 0, until: int = 1, **options: Any) -> list[Loaded]:
        """Loads days and raises the error of the worst."""
        done, error = ingest(
            self.config, self.source, span(since, until), **{"changed": False, "allow_empty": False} | options
        )
        if error:
            raise error
        return done

    def rows(self, since: int = 0, until: int = 1) -> int:
        """What a query finds."""
        return rows_served(self.druid, self.name, interval(since, until))

    def revenue(self, since: int = 0, until: int = 1) -> dict[str, int]:
        answer = self.druid.queries.groupby(
            datasource=self.name, granularity="all", intervals=interval(since, until), dimensions=["experiment"],
            aggregations={"revenue": {"type": "longSum", "fieldName": "revenue"}}, context={"useCache": False},
        )  # fmt: skip
        return {str(row["event"]["experiment"]): int(row["event"]["revenue"]) for row in answer.result}


def new_case(deployment: Deployment, toml: str = TOML) -> Case:
    name = deployment.declare("d", toml)
    source = find_source(deployment.config, name)
    assert deployment.config.druid
    return Case(deployment, deployment.config, source, Druid(deployment.config.druid))


def events(day: date, rows: int, revenue: int = 1, visitors: int = 37) -> pa.Table:
    """Rows of an events table: a few experiments, spread over the hours of a day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    columns: dict[str, Any] = {
        "event_time": pa.array([start + timedelta(minutes=i % 1440) for i in range(rows)], pa.timestamp("us", "UTC")),
        "experiment": [f"e{i % 3}" if i % 7 else None for i in range(rows)],
        "holdback": [bool(i % 2) for i in range(rows)],
        "revenue": pa.array([revenue * (i % 5) for i in range(rows)], pa.int64()),
        "visitor": [f"v{i % visitors}" for i in range(rows)],
        "tags": pa.array([[("k", "v")]] * rows, pa.map_(pa.string(), pa.string())),
        "quality": ["ok"] * rows,
        "date": pa.array([day] * rows, pa.date32()),
    }
    return pa.table(columns)


def span(since: int, until: int) -> TimeSpan:
    return TimeSpan.parse(f"{FIRST + timedelta(days=since)}", f"{FIRST + timedelta(days=until)}")


def interval(since: int, until: int) -> str:
    return str(span(since, until)).replace("Z", "")


def outcomes(done: Sequence[Loaded]) -> list[str]:
    return [chunk.outcome for chunk in done]
