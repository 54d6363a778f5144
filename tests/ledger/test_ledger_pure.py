"""Reconciliation without servers: when the stages agree, and when they must not."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipeline_lib.ledger.reconcile import HOUR_MS, Row, Stage, count_records, reconcile, totals, zone_borders
from pipeline_lib.records.offsets import OffsetRange

ID = ("id", 0)
EVER = (0, 1 << 62)


class Records:
    """A stage as the test tells it: its offsets of one partition, all in one hour unless told otherwise."""

    def __init__(self, offsets: Iterable[int], first: int, until: int, gaps: Iterable[tuple[int, int]] = ()) -> None:
        self.offsets = list(offsets)
        self.empty = Stage((), {ID: (first, until)}, [("id", OffsetRange(0, *gap)) for gap in gaps])

    def stage(self, borders: list[int], hour_of: int) -> Stage:
        offsets = np.array(self.offsets, np.int64)
        times = (offsets // hour_of) * HOUR_MS
        return Stage(count_records(ID, offsets, times, borders, EVER), self.empty.held, self.empty.gaps)


def ledger(
    kafka: Records | None,
    landed: Records | None,
    archived: Records | None,
    compacted: bool = False,
    hour_of: int = 1000,
) -> list[Row]:
    stages = [kafka, landed, archived]
    borders = zone_borders(stage.empty for stage in stages if stage)[ID]
    return reconcile(*(stage and stage.stage(borders, hour_of) for stage in stages), compacted)


def agrees(*stages: Records | None, compacted: bool = False) -> str:
    (row,) = ledger(*stages, compacted=compacted)  # type: ignore[arg-type]
    return row.agrees


ALL = Records(range(10), 0, 10)


def test_equal_stages_agree() -> None:
    (row,) = ledger(ALL, ALL, ALL)
    assert (row.kafka, row.landed, row.archived, row.duplicates, row.agrees) == (10, 10, 10, 0, "yes")


def test_missing_record_disagrees_in_whichever_stage_it_is_missing() -> None:
    lost = Records([0, 1, 2, 4, 5, 6, 7, 8, 9], 0, 10)
    assert agrees(ALL, lost, ALL) == "no"
    assert agrees(ALL, ALL, lost) == "no"
    assert agrees(lost, ALL, ALL) == "no"


def test_equal_counts_of_other_records_disagree() -> None:
    other = Records([0, 1, 2, 4, 5, 6, 7, 8, 9, 10], 0, 11)
    assert agrees(Records([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0, 11), other, None) == "no"


def test_record_twice_disagrees() -> None:
    (row,) = ledger(ALL, Records([*range(10), 3], 0, 10), ALL)
    assert (row.landed, row.duplicates, row.agrees) == (10, 1, "no")


def test_record_that_retention_removed_agrees_while_it_is_archived() -> None:
    assert agrees(Records(range(5, 10), 5, 10), ALL, ALL) == "yes"
    assert agrees(Records(range(5, 10), 5, 10), ALL, Records([0, 1, 2, 3, *range(5, 10)], 0, 10)) == "no"


def test_hours_that_are_over_may_lack_records_but_have_no_others() -> None:
    def row(left: Iterable[int], archived: Records, over: int = 1) -> Row:
        landed = Records(left, 0, 10)
        borders = zone_borders([landed.empty, archived.empty])[ID]
        stage = replace(landed.stage(borders, 5), expired_before=over)
        rows = reconcile(None, stage, archived.stage(borders, 5), compacted=False)
        return rows[0]

    assert row([0, 4, *range(5, 10)], ALL).agrees == "expired"
    assert row(range(5, 10), ALL).agrees == "expired"
    assert row(range(5, 10), ALL, over=0).agrees == "no"
    assert row(range(10), ALL).agrees == "yes"
    assert row(range(10), Records([0, 1, 2, 3, *range(5, 10)], 0, 10)).agrees == "no"
    assert row([0, 4, *range(5, 10)], Records(range(5), 0, 5)).agrees == "expired"


def test_record_not_read_yet_is_behind() -> None:
    some = Records(range(6), 0, 6)
    assert agrees(ALL, some, ALL) == "behind"
    assert agrees(ALL, ALL, some) == "behind"
    assert agrees(ALL, Records([0, 1, 2, 3, 4], 0, 6), ALL) == "no"  # behind, and 5 is lost as well


def test_record_beyond_progress_disagrees() -> None:
    assert agrees(ALL, Records(range(10), 0, 6), ALL) == "no"


def test_recorded_gap_is_told_from_a_loss() -> None:
    gap = Records(range(4, 10), 0, 10, gaps=[(0, 4)])
    assert agrees(Records(range(4, 10), 4, 10), gap, ALL) == "gap"
    assert agrees(Records(range(4, 10), 4, 10), gap, gap) == "yes"
    assert agrees(Records(range(4, 10), 4, 10), Records(range(4, 10), 0, 10), ALL) == "no"


def test_kafka_that_ends_before_what_was_read_disagrees() -> None:
    assert agrees(Records(range(8), 0, 8), ALL, ALL) == "no"


def test_sparse_offsets_agree() -> None:
    sparse = Records([0, 3, 9], 0, 10)
    assert agrees(sparse, sparse, sparse) == "yes"


def test_compaction_may_remove_from_kafka_but_not_from_the_others() -> None:
    few = Records([1, 9], 0, 10)
    assert agrees(few, ALL, ALL, compacted=True) == "yes"
    assert agrees(ALL, few, ALL, compacted=True) == "no"


def test_stage_that_does_not_exist_is_left_out() -> None:
    (row,) = ledger(ALL, None, ALL)
    assert (row.landed, row.quarantined, row.agrees) == (None, None, "yes")
    (row,) = ledger(None, ALL, ALL)
    assert (row.kafka, row.agrees) == (None, "yes")
    assert agrees(ALL, None, Records(range(9), 0, 10)) == "no"


def test_former_topic_of_the_same_name_agrees_without_kafka() -> None:
    cells = count_records(ID, np.arange(3), np.zeros(3, np.int64), [3], EVER)
    stage = Stage(cells, {ID: (0, 3)})
    now = Stage((), {("new", 0): (0, 0)})
    (row,) = reconcile(now, stage, stage, compacted=False)
    assert (row.topic_id, row.kafka, row.agrees) == ("id", 0, "yes")


def test_only_the_hour_of_the_loss_disagrees() -> None:
    rows = ledger(ALL, Records([0, 1, 2, 3, 4, 5, 6, 8, 9], 0, 10), ALL, hour_of=5)
    assert [(row.hour, row.landed, row.agrees) for row in rows] == [(0, 5, "yes"), (1, 4, "no")]
    total = totals(rows)
    assert (total.kafka, total.landed, total.archived, total.agrees) == (10, 9, 10, "no")


def test_records_outside_the_span_are_not_counted() -> None:
    offsets = np.arange(4)
    cells = count_records(ID, offsets, offsets * HOUR_MS, [2], (HOUR_MS, 3 * HOUR_MS))
    assert [(cell.hour, cell.zone, cell.tally.records) for cell in cells] == [(1, 0, 1), (2, 1, 1)]


def test_zones_are_cut_where_what_a_stage_holds_changes() -> None:
    stage = Stage((), {ID: (3, 9)}, [("id", OffsetRange(0, 4, 6))])
    assert zone_borders([stage, Stage((), {ID: (0, 12)})]) == {ID: [3, 4, 6, 9, 12]}
