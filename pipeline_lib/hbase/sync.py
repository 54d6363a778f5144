"""Sync: makes one side's rows those of another, after a plan, and compares again.

The left side of the comparison is the source, the right one the target. Cells keep the source's timestamps: a second run
writes the same cells, and nothing newer in the target is hidden.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby

import msgspec

from pipeline_lib.config import HBaseSettings
from pipeline_lib.errors import ConfigError, VerificationFailed
from pipeline_lib.hbase.diff import Cells, Difference, differing
from pipeline_lib.hbase.diff_run import Comparison, Pair, Runner, differing_pairs, digest_sides, read_differences
from pipeline_lib.hbase.mapping import Row, row_bytes, too_large
from pipeline_lib.hbase.put import Putter
from pipeline_lib.hbase.sides import ClusterSide
from pipeline_lib.io.hbase import HBase
from pipeline_lib.log import fact

HELD_REQUESTS = 8
"""The most requests' worth of rows that a task holds, so that few requests are half empty."""


@dataclass
class SyncPlan:
    """What a sync does, and what it cannot do, in rows.

    `newer_in_target`: a cell that differs is newer in the target, which an older one would not replace.
    `other_columns`: the target has columns that the source does not have, which a put does not remove.
    `too_large`: HBase refuses the row for the size of a cell.
    `digest` stands for everything that would be written or deleted.
    """

    source_rows: int = 0
    target_rows: int = 0
    add: int = 0
    replace: int = 0
    delete: int = 0
    only_in_target: int = 0
    newer_in_target: int = 0
    other_columns: int = 0
    too_large: int = 0
    digest: str = ""

    def remaining(self) -> str:
        """What a comparison after the sync found, and what to do about it; empty where both sides are equal."""
        masked = self.add + self.replace
        found = {
            f"{masked:,} rows are not as the source has them: delete markers above their cells' timestamps mask what was "
            "written. In the target's HBase shell run flush and then major_compact of the table; then sync again": masked,
            f"{self.delete:,} rows came into the target meanwhile: sync again": self.delete,
            f"{self.only_in_target:,} rows are only in the target: --delete removes them": self.only_in_target,
            f"{self.newer_in_target:,} rows have newer cells in the target: sync the other way": self.newer_in_target,
            f"{self.other_columns:,} rows have more columns in the target": self.other_columns,
            f"{self.too_large:,} rows are too large for HBase": self.too_large,
        }
        return "\n".join(text for text, count in found.items() if count)


@dataclass(frozen=True)
class Change:
    """What becomes of one row; `delete` is the newest timestamp of the cells that go."""

    puts: tuple[Row, ...]
    kinds: tuple[str, ...]
    delete: tuple[bytes, int] | None = None


def change(found: Difference, may_delete: bool) -> Change:
    """What makes the right side's row the left side's, one put for each timestamp; `kinds` are counts of SyncPlan."""
    key, source, target = found
    if source is None:
        newest = max(timestamp for _, timestamp in (target or {}).values())
        return Change((), ("delete",), (key, newest)) if may_delete else Change((), ("only_in_target",))
    puts = _puts(key, source, target or {})
    if any(map(too_large, puts)):
        return Change((), ("too_large",))
    if target is None:
        return Change(puts, ("add",))
    newer = any(name in target and target[name][0] != value and target[name][1] > timestamp
                for name, (value, timestamp) in source.items())  # fmt: skip
    impossible = {"newer_in_target": newer, "other_columns": bool(target.keys() - source.keys())}
    kinds = tuple(kind for kind, holds in impossible.items() if holds)
    return Change(puts, kinds or ("replace",))


def _puts(key: bytes, source: Cells, target: Cells) -> tuple[Row, ...]:
    """The cells that the target lacks or has otherwise, unless newer; by timestamp."""
    by_time: dict[int, dict[bytes, bytes]] = {}
    for name, (value, timestamp) in source.items():
        before = target.get(name)
        if before is None or (before[0] != value and before[1] <= timestamp):
            by_time.setdefault(timestamp, {})[name] = value
    return tuple(Row(key, cells, timestamp) for timestamp, cells in sorted(by_time.items()))


@dataclass
class Planned:
    """The changes of some rows: how many of each kind, and the sum of their digests, whatever their order."""

    counts: dict[str, int]
    digest: int = 0


def plan_pair(pair: Pair, may_delete: bool) -> Planned:
    done = Planned({})
    for found in read_differences(pair):
        todo = change(found, may_delete)
        for kind in todo.kinds:
            done.counts[kind] = done.counts.get(kind, 0) + 1
        puts = [(row.key, sorted(row.cells.items()), row.timestamp) for row in todo.puts]
        seen = hashlib.sha256(msgspec.msgpack.encode((found.key, todo.kinds, puts, todo.delete))).digest()
        done.digest += int.from_bytes(seen[:16], "big")
    return done


def plan_sync(comparison: Comparison, may_delete: bool, run_units: Runner) -> tuple[SyncPlan, list[Pair]]:
    """What a sync would do, and the units that do it; changes nothing. Errors as diff_run.diff."""
    source, target = digest_sides(comparison, run_units)
    pairs = differing_pairs(comparison, differing(source, target))
    plan, digest = SyncPlan(source.rows, target.rows), 0
    for part in run_units(partial(plan_pair, may_delete=may_delete), pairs):
        digest += part.digest
        for kind, count in part.counts.items():
            setattr(plan, kind, getattr(plan, kind) + count)
    values = {name: count for name, count in asdict(plan).items() if not name.endswith("_rows")}
    places = (comparison.topic, comparison.table, comparison.left.name, comparison.right.name, may_delete)
    plan.digest = hashlib.sha256(json.dumps([*places, values, digest % (1 << 128)]).encode()).hexdigest()[:16]
    return plan, pairs


def sync(
    comparison: Comparison, may_delete: bool, digest: str, settings: HBaseSettings, run_units: Runner
) -> tuple[SyncPlan, SyncPlan]:
    """Carries out the plan with this digest; returns it and what another sync would find now.

    Raises:
        ConfigError: the sides differ otherwise than when the plan was made; nothing was written.
    """
    plan, pairs = plan_sync(comparison, may_delete, run_units)
    if plan.digest != digest:
        raise ConfigError(
            f"--execute {digest}: the sides now make the plan {plan.digest}; look at it again before it is executed"
        )
    run_units(partial(sync_pair, may_delete=may_delete, settings=settings), pairs)
    fact("synced", table=comparison.table, to=comparison.right.name, add=plan.add, replace=plan.replace)
    return plan, plan_sync(comparison, may_delete, run_units)[0]


def sync_pair(pair: Pair, may_delete: bool, settings: HBaseSettings) -> None:
    """Makes the right side's rows the left side's."""
    side = pair.right.side
    assert isinstance(side, ClusterSide)
    with HBase(side.name, side.settings) as cluster:
        putter = Putter(cluster, side.table, settings)
        for held in bounded((change(found, may_delete) for found in read_differences(pair)), settings):
            putter.put(row for each in held for row in each.puts)
            gone = sorted((each.delete for each in held if each.delete), key=lambda row: row[1])
            for timestamp, rows in groupby(gone, key=lambda row: row[1]):
                cluster.delete(side.table, [key for key, _ in rows], timestamp)


def bounded(changes: Iterable[Change], settings: HBaseSettings) -> Iterator[list[Change]]:
    """The changes in lists that are bounded in rows and in bytes."""
    held: list[Change] = []
    size = 0
    for each in changes:
        held.append(each)
        size += sum(map(row_bytes, each.puts))
        if len(held) >= HELD_REQUESTS * settings.batch_rows or size >= HELD_REQUESTS * settings.batch_bytes:
            yield held
            held, size = [], 0
    if held:
        yield held


def check_synced(comparison: Comparison, after: SyncPlan) -> None:
    """Raises VerificationFailed where the sides still differ; says why and what to do."""
    if text := after.remaining():
        raise VerificationFailed(f"table {comparison.table} in {comparison.right.name} still differs:\n{text}")
