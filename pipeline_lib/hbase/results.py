"""The results tables of the results page: what the analyses found for each experiment, in both clusters.

Row key: experiment | metric | segment | variation, joined by a zero byte. The cell's timestamp is the end of the analysed
span, so that an analysis that is run again gives the same row, and an older one never hides a newer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline_lib.io.hbase import HBase

TABLE, FAMILY = "results", "r"
_VALUES = b"r:values"
_REQUEST_ROWS = 500


@dataclass(frozen=True)
class Result:
    """What an analysis says of one variation; `values` are its figures by name, or the reason why there are none."""

    experiment: str
    metric: str
    segment: str
    variation: str
    values: Mapping[str, Any]
    until_ms: int

    @property
    def key(self) -> bytes:
        return b"\0".join(part.encode() for part in (self.experiment, self.metric, self.segment, self.variation))


def write_results(cluster: HBase, results: Iterable[Result]) -> None:
    """Writes the rows, those of one analysed span together; makes the table where it is not there."""
    if TABLE not in cluster.tables():
        cluster.create_table(TABLE, FAMILY)
    by_time: dict[int, list[tuple[bytes, dict[bytes, bytes]]]] = {}
    for result in results:
        cells = {_VALUES: msgspec.json.encode(dict(result.values))}
        by_time.setdefault(result.until_ms, []).append((result.key, cells))
    for until_ms, rows in by_time.items():
        for at in range(0, len(rows), _REQUEST_ROWS):
            cluster.put(TABLE, rows[at : at + _REQUEST_ROWS], until_ms)


def read_results(cluster: HBase, experiment: str | None) -> list[Result]:
    """The rows of one experiment, or of all, in the order of their keys. None are there before the first analysis."""
    if TABLE not in cluster.tables():
        return []
    start = experiment.encode() + b"\0" if experiment else b""
    stop = experiment.encode() + b"\1" if experiment else None
    return [_result(key, *cells[_VALUES]) for key, cells in cluster.scan(TABLE, start, stop) if _VALUES in cells]


def _result(key: bytes, values: bytes, until_ms: int) -> Result:
    parts = [part.decode() for part in key.split(b"\0")]
    experiment, metric, segment, variation = parts
    return Result(experiment, metric, segment, variation, msgspec.json.decode(values), until_ms)
