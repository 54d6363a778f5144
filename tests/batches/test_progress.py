"""Plans of the batch protocol: nothing is left out, nothing twice, what Kafka lost is told."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.batches.progress import BatchPlan, app_id, plan_batch
from pipeline_lib.batches.run import Limits, plan_next, read_ends
from pipeline_lib.config import BatchSettings
from pipeline_lib.errors import LodeError
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.records.offsets import OffsetRange


def test_the_first_run_starts_at_zero() -> None:
    plan = plan_batch({}, {0: (0, 10), 1: (0, 0)}, 1000)
    assert plan == BatchPlan((OffsetRange(0, 0, 10),), (), True)
    assert plan.covers == {0: (0, 10)}


def test_what_expired_before_the_first_run_is_a_gap() -> None:
    plan = plan_batch({}, {0: (4, 10)}, 1000)
    assert plan == BatchPlan((OffsetRange(0, 4, 10),), (OffsetRange(0, 0, 4),), True)
    assert plan.covers == {0: (0, 10)}


def test_all_expired_is_a_gap_without_a_range() -> None:
    plan = plan_batch({0: 3}, {0: (10, 10)}, 1000)
    assert plan == BatchPlan((), (OffsetRange(0, 3, 10),), True)
    assert plan.covers == {0: (3, 10)}


def test_nothing_new_is_no_plan() -> None:
    plan = plan_batch({0: 10, 1: 0}, {0: (2, 10), 1: (0, 0)}, 1000)
    assert plan == BatchPlan((), (), True)
    assert plan.covers == {}
    assert plan_batch({}, {}, 1000) == BatchPlan((), (), True)


def test_a_partition_that_was_added_starts_at_zero() -> None:
    assert plan_batch({0: 10}, {0: (0, 10), 1: (0, 5)}, 1000).covers == {1: (0, 5)}


def test_a_log_that_lost_its_end_is_an_error() -> None:
    with pytest.raises(LodeError, match=r"partition 1 ends at offset 9, but offsets up to 10 .*lost"):
        plan_batch({0: 5, 1: 10}, {0: (0, 7), 1: (0, 9)}, 1000)


def test_the_limit_is_shared_and_the_rest_is_told() -> None:
    plan = plan_batch({}, {0: (0, 100), 1: (0, 3), 2: (50, 200)}, 30)
    assert plan.covers == {0: (0, 10), 1: (0, 3), 2: (0, 60)}
    assert not plan.complete
    assert plan_batch({}, {0: (0, 1), 1: (0, 2)}, 1).covers == {0: (0, 1), 1: (0, 1)}  # each moves, or none ever would


partitions = st.dictionaries(
    st.integers(0, 5), st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda pair: (min(pair), max(pair)))
)


@given(partitions, st.dictionaries(st.integers(0, 5), st.integers(0, 50)), st.integers(1, 60))
def test_repeated_plans_cover_each_offset_once(
    available: dict[int, tuple[int, int]], progress: dict[int, int], most: int
) -> None:
    progress = {p: min(at, available[p][1]) for p, at in progress.items() if p in available}
    read: dict[int, list[int]] = {p: [] for p in available}
    lost: dict[int, list[int]] = {p: [] for p in available}
    at = dict(progress)
    for _ in range(200):
        plan = plan_batch(at, available, most)
        assert sum(part.until - part.since for part in plan.ranges) <= max(most, len(available))
        for part in plan.ranges:
            read[part.partition] += range(part.since, part.until)
        for gap in plan.gaps:
            lost[gap.partition] += range(gap.since, gap.until)
        for p, (since, until) in plan.covers.items():
            assert since == at.get(p, 0)
            at[p] = until
        if plan.complete:
            break
    for p, (earliest, end) in available.items():
        start = progress.get(p, 0)
        assert read[p] == list(range(max(start, earliest), end))
        assert lost[p] == list(range(start, max(start, earliest)))
    assert plan_batch(at, available, most).covers == {}


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 40))
def test_split_covers_a_range_in_order(since: int, size: int, most: int) -> None:
    parts = list(OffsetRange(3, since, since + size).split(most))
    assert [at for part in parts for at in range(part.since, part.until)] == list(range(since, since + size))
    assert all(0 < part.until - part.since <= most and part.partition == 3 for part in parts)


def test_progress_is_named_after_topic_id_and_partition() -> None:
    names = {app_id(topic, p) for topic in ("a", "b") for p in (0, 1, 10)}
    assert len(names) == 6


@dataclass
class Log:
    """A topic as the plan sees it: bounds of each partition, and where a time begins."""

    bounds: dict[int, tuple[int, int]]
    at_time: dict[int, int] = field(default_factory=dict)
    record_bytes: float = 1.0

    def offsets(self, info: TopicInfo) -> dict[int, tuple[int, int]]:
        return self.bounds

    def offsets_at(self, info: TopicInfo, time_ms: int) -> dict[int, int]:
        assert time_ms == 1_793_491_200_001
        return self.at_time

    def average_record_bytes(self, info: TopicInfo, bounds: dict[int, tuple[int, int]]) -> float:
        assert bounds == self.bounds
        return self.record_bytes

    def plan(self, progress: dict[int, int], until: bool = False, **limits: Any) -> BatchPlan:
        kafka, info = cast(Kafka, self), TopicInfo("t", "id", {0: 1})
        moment = datetime(2026, 11, 1, 0, 0, 0, 1000, tzinfo=UTC) if until else None
        ends = read_ends(kafka, info, moment)
        return plan_next(kafka, info, progress, ends, BatchSettings(), Limits(until=moment, **limits))


def test_a_run_up_to_a_time_ends_there() -> None:
    log = Log({0: (0, 100), 1: (0, 100), 2: (80, 100)}, {0: 50, 2: 60})
    assert log.plan({}, until=True).covers == {0: (0, 50), 1: (0, 100), 2: (0, 80)}


def test_a_run_up_to_a_time_that_was_passed_before_has_nothing_to_do() -> None:
    assert Log({0: (0, 100)}, {0: 50}).plan({0: 70}, until=True).covers == {}
    with pytest.raises(LodeError, match="lost"):
        Log({0: (0, 60)}, {0: 50}).plan({0: 70}, until=True)


def test_bytes_and_records_bound_a_batch() -> None:
    log = Log({0: (0, 100)}, record_bytes=10.0)
    assert log.plan({}, max_bytes=200).covers == {0: (0, 20)}
    assert log.plan({}, max_bytes=200, max_records=7).covers == {0: (0, 7)}
    assert log.plan({}, max_bytes=1).covers == {0: (0, 1)}
    assert [(u.since, u.until) for u in log.plan({}).units(40)] == [(0, 40), (40, 80), (80, 100)]


def test_strict_stops_at_a_gap() -> None:
    log = Log({0: (10, 100)})
    assert log.plan({0: 5}).gaps == (OffsetRange(0, 5, 10),)
    with pytest.raises(LodeError, match=r"t: .*0: \[5, 10\)"):
        log.plan({0: 5}, strict=True)
