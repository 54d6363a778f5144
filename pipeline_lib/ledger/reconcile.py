"""The ledger: where each record of a topic is, by hour of its Kafka timestamp and by partition. Pure.

Counts alone would agree when a stage lost one record and has another twice, so a tally also holds the sum and the xor
of the offsets. Which stage has to have a record is told by offsets: each partition is cut into zones at every offset
where that changes (Kafka's ends, each stage's progress, gaps), and tallies are compared zone by zone.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline_lib.records.offsets import OffsetRange

HOUR_MS = 3_600_000
Agrees = Literal["yes", "expired", "behind", "gap", "no"]
_WORST: tuple[Agrees, ...] = ("no", "gap", "behind", "expired", "yes")
Partition = tuple[str, int]
"""(topic id, partition)"""


@dataclass(frozen=True)
class Tally:
    """Distinct records, and their offsets' sum and xor: equal tallies are, for all that happens, the same records."""

    records: int = 0
    offset_sum: int = 0
    offset_xor: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.records + other.records, self.offset_sum + other.offset_sum, self.offset_xor ^ other.offset_xor
        )


@dataclass(frozen=True)
class Cell:
    """A stage's records of one partition, hour and zone. `tally` includes the quarantined ones."""

    partition: Partition
    hour: int
    zone: int
    tally: Tally
    quarantined: int = 0
    duplicates: int = 0
    late: int = 0


@dataclass(frozen=True)
class Stage:
    """What a stage holds, and which offsets it has to hold.

    Args:
        held: [first, next) offset per partition that it answers for. Without an entry a partition is one that the stage
            has yet to read, or for Kafka one of a former topic.
        gaps: offsets within that it recorded as lost before it could read them.
        expired_before: of earlier hours it may have removed records since.
    """

    cells: Sequence[Cell]
    held: Mapping[Partition, tuple[int, int]]
    gaps: Sequence[tuple[str, OffsetRange]] = ()
    expired_before: int = 0

    def answers_for(self, partition: Partition, since: int) -> Literal["held", "gap", "behind", "expired"]:
        first, until = self.held.get(partition, (0, 0))
        if since >= until:
            return "behind"
        if since < first:
            return "expired"
        in_gap = any((t, g.partition) == partition and g.since <= since < g.until for t, g in self.gaps)
        return "gap" if in_gap else "held"


@dataclass
class Row:
    """One hour of one partition. A stage that does not exist has None."""

    topic_id: str
    partition: int
    hour: int
    kafka: int | None = None
    landed: int | None = None
    quarantined: int | None = None
    archived: int | None = None
    duplicates: int = 0
    late: int = 0
    agrees: Agrees = "yes"


@dataclass
class Ledger:
    topic: str
    rows: list[Row] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    replays: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def disagreements(self) -> int:
        return sum(row.agrees == "no" for row in self.rows)


def zone_borders(stages: Iterable[Stage]) -> dict[Partition, list[int]]:
    """The offsets of each partition where it changes which stages have to have a record. A record's zone is the number
    of borders at or below its offset."""
    borders: dict[Partition, set[int]] = defaultdict(set)
    for stage in stages:
        for partition, ends in stage.held.items():
            borders[partition].update(ends)
        for topic_id, gap in stage.gaps:
            borders[topic_id, gap.partition].update((gap.since, gap.until))
    return {partition: sorted(own - {0}) for partition, own in borders.items()}


def count_records(
    partition: Partition,
    offsets: npt.NDArray[np.int64],
    timestamps: npt.NDArray[np.int64],
    borders: Sequence[int],
    span_ms: tuple[int, int],
) -> list[Cell]:
    """The cells of some records, given as offsets and timestamps (ms); those outside the span are left out."""
    inside = (timestamps >= span_ms[0]) & (timestamps < span_ms[1])
    offsets, hours = offsets[inside], timestamps[inside] // HOUR_MS
    zones = np.searchsorted(np.array(borders, np.int64), offsets, side="right")
    cells = []
    for hour, zone in sorted(set(zip(hours.tolist(), zones.tolist(), strict=True))):
        found = offsets[(hours == hour) & (zones == zone)]
        own = np.unique(found)
        tally = Tally(len(own), sum(own.tolist()), int(np.bitwise_xor.reduce(own)))
        cells.append(Cell(partition, hour, zone, tally, duplicates=len(found) - len(own)))
    return cells


def reconcile(kafka: Stage | None, landed: Stage | None, archived: Stage | None, compacted: bool) -> list[Row]:
    """One row an hour and partition, oldest first; None is a stage that does not exist.

    A row agrees ("yes") if in every zone all stages that answer for its offsets have the same records, no stage has a
    record that it does not answer for, and no stage has one twice. A stage does not answer for what it has not read
    yet: if another has records there the row is "behind"; nor for what Kafka dropped before the stage could read it:
    "gap", a loss, but one that is recorded. Kafka does not answer for what its retention removed, nor for a former
    topic of the same name: that agrees as long as the others do. A Kafka that ends before what others read has lost
    its end. Of a compacted topic each stage has what was there when it read: only more records in Kafka than in
    another stage are a difference. Of an hour that is over in a stage (`lode expire`) fewer records there are
    "expired", more are a difference. Everything else is "no".
    """
    stages = {name: stage for name, stage in (("kafka", kafka), ("landed", landed), ("archived", archived)) if stage}
    borders = zone_borders(stages.values())
    cells: dict[tuple[str, int, int], dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for name, stage in stages.items():
        for cell in stage.cells:
            cells[(*cell.partition, cell.hour)][name].append(cell)
    rows = []
    for (topic_id, partition, hour), by_stage in cells.items():
        row = Row(topic_id, partition, hour, agrees=_agrees(by_stage, stages, borders, compacted))
        for name in stages:
            own = by_stage.get(name, [])
            quarantined = sum(cell.quarantined for cell in own)
            setattr(row, name, sum(cell.tally.records for cell in own) - quarantined)
            row.duplicates += sum(cell.duplicates for cell in own)
            row.late += sum(cell.late for cell in own)
            if name == "landed":
                row.quarantined = quarantined
        rows.append(row)
    return sorted(rows, key=lambda row: (row.hour, row.topic_id, row.partition))


def _agrees(
    by_stage: Mapping[str, Sequence[Cell]],
    stages: Mapping[str, Stage],
    borders: Mapping[Partition, Sequence[int]],
    compacted: bool,
) -> Agrees:
    cells = [(name, cell) for name, own in by_stage.items() for cell in own]
    if any(cell.duplicates for _, cell in cells):
        return "no"
    states: set[Agrees] = {"yes"}
    partition, hour = cells[0][1].partition, cells[0][1].hour
    over = {name for name, stage in stages.items() if hour < stage.expired_before}
    for zone in {cell.zone for _, cell in cells}:
        first = [0, *borders.get(partition, [])][zone]
        tallies = {
            name: reduce(Tally.__add__, (c.tally for c in by_stage.get(name, []) if c.zone == zone), Tally())
            for name in stages
        }
        answers = {name: stage.answers_for(partition, first) for name, stage in stages.items()}
        if "kafka" in stages and partition not in stages["kafka"].held:
            answers["kafka"] = "expired"
        states.add(_zone_agrees(tallies, answers, compacted, over))
    return next(state for state in _WORST if state in states)


def _zone_agrees(
    tallies: Mapping[str, Tally], answers: Mapping[str, str], compacted: bool, over: Collection[str]
) -> Agrees:
    for name, answer in answers.items():
        if answer != "held" and tallies[name].records:
            return "no"
    if answers.get("kafka") == "behind" and any(tally.records for tally in tallies.values()):
        return "no"
    holders = {name: tallies[name] for name, answer in answers.items() if answer == "held"}
    left = {name: holders.pop(name) for name in over if name in holders}
    most = max((tally.records for tally in holders.values()), default=None)
    if most is not None and any(tally.records > most for tally in left.values()):
        return "no"
    if compacted:
        in_kafka = holders.pop("kafka", Tally()).records
        if any(tally.records < in_kafka for tally in holders.values()):
            return "no"
    elif len(set(holders.values())) > 1:
        return "no"
    others = {answer for name, answer in answers.items() if name != "kafka"}
    if most is not None and any(tally.records < most for tally in left.values()):
        others.add("expired")
    return next((state for state in _WORST if state in others), "yes")


def totals(rows: Sequence[Row]) -> Row:
    """The sum of the rows; it agrees as badly as the worst of them."""
    total = Row("", -1, -1)
    for name in ("kafka", "landed", "quarantined", "archived", "duplicates", "late"):
        known = [value for row in rows if (value := getattr(row, name)) is not None]
        setattr(total, name, sum(known) if known or name in ("duplicates", "late") else None)
    total.agrees = next((state for state in _WORST if any(row.agrees == state for row in rows)), "yes")
    return total
