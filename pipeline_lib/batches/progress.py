"""How far a topic has been read, and what the next batch reads: the batch protocol's pure half.

Progress is the next offset of each partition. It is kept in the table itself, as Delta application transactions, one a
partition, whose version is that offset: they are in the commit that makes the records visible, they outlive log
clean-up (checkpoints hold them), and of two commits that move the same partition Delta refuses the second.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline_lib.errors import LodeError
from pipeline_lib.records.offsets import OffsetRange


@dataclass(frozen=True)
class BatchPlan:
    """What one batch reads, and the offsets that Kafka no longer had when it was planned."""

    ranges: tuple[OffsetRange, ...]
    gaps: tuple[OffsetRange, ...]
    complete: bool  # nothing is left behind this batch at the time of planning

    @property
    def covers(self) -> dict[int, tuple[int, int]]:
        """[from, until) per partition, gaps included: what the commit moves progress over."""
        parts = sorted([*self.gaps, *self.ranges], key=lambda part: (part.partition, part.since))
        covered: dict[int, tuple[int, int]] = {}
        for part in parts:
            since, _ = covered.get(part.partition, (part.since, part.until))
            covered[part.partition] = (since, part.until)
        return covered

    def units(self, most: int) -> list[OffsetRange]:
        """The ranges, cut into units of work of `most` offsets for one task each."""
        return [part for span in self.ranges for part in span.split(most)]

    @property
    def ends(self) -> dict[int, int]:
        """The progress of each partition once the batch is committed."""
        return {partition: until for partition, (_, until) in self.covers.items()}


def app_id(topic_id: str, partition: int) -> str:
    """The name of the application transaction that holds a partition's progress."""
    return f"lode:{topic_id}:{partition}"


def plan_batch(
    progress: Mapping[int, int],
    available: Mapping[int, tuple[int, int]],
    max_records: int,
) -> BatchPlan:
    """The next ranges to read, an even share of `max_records` offsets a partition.

    Args:
        progress: next offset per partition; a partition that is absent starts at 0, so that records which expired
            before the first run are a gap too and not silence.
        available: (earliest offset, last stable offset) per partition, as Kafka has them now.

    Raises:
        LodeError: a partition ends before what was already read. Kafka lost its tail (unclean leader election); going
            on would skip or repeat records without a word.
    """
    ranges, gaps, left = [], [], 0
    share = max(1, max_records // max(1, len(available)))
    for partition, (earliest, stable) in sorted(available.items()):
        at = progress.get(partition, 0)
        if stable < at:
            raise LodeError(
                f"partition {partition} ends at offset {stable}, but offsets up to {at} were read before: Kafka lost "
                "its end (an unclean leader election?). Recreate the topic or restore it from the archive."
            )
        if earliest > at:
            gaps.append(OffsetRange(partition, at, earliest))
            at = earliest
        if stable > at:
            ranges.append(OffsetRange(partition, at, min(stable, at + share)))
            left += max(0, stable - at - share)
    return BatchPlan(tuple(ranges), tuple(gaps), complete=left == 0)
