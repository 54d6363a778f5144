"""The comparison of a replay's rows with what stands in a cluster.

A record's row need not stand as it was put: a later record, of the archive or from a live serve, may have the same key.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Literal

from pipeline_lib.archive.segment import Segment
from pipeline_lib.hbase.clusters import open_cluster
from pipeline_lib.hbase.mapping import Row, put_batches, too_large
from pipeline_lib.io.hbase import Cells, HBase
from pipeline_lib.replay.hbase_tail import TailUnit, open_tails, read_tail
from pipeline_lib.replay.hbase_units import HBaseUnit
from pipeline_lib.replay.run import EXAMPLES, Verified

TIES = 50_000
"""Rows whose cells differ at equal timestamps, held until a second reading of the archive tells which has to stand."""

Judgement = Literal["equal", "newer", "tie", "missing"]


def judge(row: Row, stored: Cells) -> Judgement:
    """What the table holds of a row that was put.

    A cell that is absent or older than the row's is `missing`: a delete marker at its timestamp or above hides it. One
    that is newer is another, later record's. A `tie` is another value of the same timestamp.
    """
    found: Judgement = "equal"
    for name, value in row.cells.items():
        has, at = stored.get(name, (b"", -1))
        if name not in stored or at < row.timestamp:
            return "missing"
        if at == row.timestamp and has != value:
            found = "tie"
        elif at > row.timestamp and found == "equal":
            found = "newer"
    return found


def verify_unit(unit: HBaseUnit) -> Verified:
    """Compares the rows of one partition with the cluster's; `foreign` are those that newer cells stand above."""
    done, ties = Verified(0, 0, 0), set[bytes]()
    with open_cluster(unit.config, unit.cluster) as cluster:
        for found in unit.read(unit.plan.partitions[unit.partition]):
            if isinstance(found, Segment):
                continue
            for row, stored in _stored(unit, cluster, found):
                judged = judge(row, stored)
                if judged == "tie":
                    ties.add(row.key)
                done = _counted(done, judged, unit.shown(row.key) if judged == "missing" else "")
            if len(ties) >= TIES:
                done, ties = _settle(unit, cluster, ties, done), set()
        return _settle(unit, cluster, ties, done)


def _counted(done: Verified, judged: Judgement, example: str) -> Verified:
    examples = (*done.examples, example)[:EXAMPLES] if example else done.examples
    missing, foreign = done.missing + (judged == "missing"), done.foreign + (judged == "newer")
    return Verified(done.records + 1, missing, foreign, examples)


def _stored(unit: HBaseUnit, cluster: HBase, found: Iterable[Row]) -> Iterator[tuple[Row, Cells]]:
    """Each row that HBase can hold, and its cells there."""
    config, target = unit.config.hbase, unit.target
    kept = [
        row
        for row in found
        if target.compares(row.key) and not too_large(row)
        if not unit.refused or unit.shown(row.key) not in unit.refused
    ]
    for batch in put_batches(kept, config.batch_rows, config.batch_bytes):
        cells = cluster.get(unit.target.table, [row.key for row in batch])
        for row in batch:
            yield row, cells.get(row.key, {})


def _settle(unit: HBaseUnit, cluster: HBase, ties: set[bytes], done: Verified) -> Verified:
    """Counts the rows as missing that hold no value which has to stand there."""
    if not ties:
        return done
    kept = standing(unit, ties)
    for start in range(0, len(ties), unit.config.hbase.batch_rows):
        keys = sorted(ties)[start : start + unit.config.hbase.batch_rows]
        stored = cluster.get(unit.target.table, keys)
        for key in keys:
            cells = stored.get(key, {})
            wrong = any(
                name not in cells or cells[name][1] < at or (cells[name][1] == at and cells[name][0] not in values)
                for name, (at, values) in kept[key].items()
            )
            if wrong:
                examples = (*done.examples, unit.shown(key))[:EXAMPLES]
                done = replace(done, missing=done.missing + 1, examples=examples)
    return done


def standing(unit: HBaseUnit, keys: set[bytes]) -> dict[bytes, dict[bytes, tuple[int, set[bytes]]]]:
    """For each key and column the greatest timestamp of the replay's records and the values that may stand there: the
    last one of any partition, since partitions have no order among themselves."""
    last: dict[bytes, dict[bytes, dict[int, tuple[int, bytes]]]] = {key: {} for key in keys}
    tails = open_tails(unit.config, unit.plan)
    for partition, segments in unit.plan.partitions.items():
        part = replace(unit, partition=partition)
        newest = read_tail(TailUnit(part, *tails[partition])) if partition in tails else ()
        for found in chain(part.read(segments), newest):
            for row in () if isinstance(found, Segment) else found:
                if row.key not in keys or too_large(row):
                    continue
                for name, value in row.cells.items():
                    values = last[row.key].setdefault(name, {})
                    if row.timestamp >= values.get(partition, (row.timestamp, b""))[0]:
                        values[partition] = (row.timestamp, value)
    return {key: {name: _newest(values.values()) for name, values in cells.items()} for key, cells in last.items()}


def _newest(found: Iterable[tuple[int, bytes]]) -> tuple[int, set[bytes]]:
    at = max(time for time, _ in found)
    return at, {value for time, value in found if time == at}
