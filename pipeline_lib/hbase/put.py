"""Rows into a table: in bounded requests, at a bounded rate, without the rows that HBase refuses. Serve and replay."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline_lib.config import HBaseSettings
from pipeline_lib.hbase.mapping import Row, put_batches, too_large
from pipeline_lib.io.hbase import HBase, RowTooLarge
from pipeline_lib.log import fact


@dataclass
class Put:
    """What was written; `refused`: the keys of rows with a cell that is too large for HBase."""

    rows: int = 0
    refused: list[bytes] = field(default_factory=list)


class Putter:
    """Writes rows to one table, in the order in which they come: of equal timestamps the later one stands."""

    def __init__(self, cluster: HBase, table: str, settings: HBaseSettings) -> None:
        self._cluster, self._table, self._settings = cluster, table, settings
        self._started = time.monotonic()
        self.done = Put()

    def put(self, found: Iterable[Row]) -> None:
        """Raises ServerUnavailable or ConfigError as HBase.put does; what was refused is only noted."""
        fitting = []
        for row in found:
            if too_large(row):
                self._refuse(row)
            else:
                fitting.append(row)
        for batch in put_batches(fitting, self._settings.batch_rows, self._settings.batch_bytes):
            self._send(batch)

    def _send(self, batch: list[Row]) -> None:
        try:
            self._cluster.put(self._table, [(row.key, row.cells) for row in batch], batch[0].timestamp)
        except RowTooLarge:  # the server's limit is below HBase's default
            if len(batch) > 1:
                for row in batch:
                    self._send([row])
            else:
                self._refuse(batch[0])
            return
        self.done.rows += len(batch)
        if self._settings.max_rows_per_s:
            ahead = self.done.rows / self._settings.max_rows_per_s - (time.monotonic() - self._started)
            time.sleep(max(0.0, ahead))

    def _refuse(self, row: Row) -> None:
        self.done.refused.append(row.key)
        fact("row_too_large", cluster=self._cluster.name, table=self._table, key=row.key.hex())
