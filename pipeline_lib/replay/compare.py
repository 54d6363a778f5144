"""Comparison of two streams of rows in order, in bulk where they are equal."""

from collections.abc import Iterator

import pyarrow as pa


def unmatched(expected: Iterator[pa.RecordBatch], found: Iterator[pa.RecordBatch]) -> tuple[int, int]:
    """How many expected records do not stand in `found` in the expected order, and how many found ones are others'.

    Both are streams of rows with the same columns. Runs of equal rows are compared in bulk.
    """
    foreign = 0
    right: pa.RecordBatch | None = None
    for left in expected:
        while left.num_rows:
            while right is None or not right.num_rows:
                right = next(found, None)
                if right is None:
                    rest = left.num_rows + sum(batch.num_rows for batch in expected)
                    return rest, foreign
            size = min(left.num_rows, right.num_rows)
            if left.slice(0, size).equals(right.slice(0, size)):
                left, right = left.slice(size), right.slice(size)
            elif left.slice(0, 1).equals(right.slice(0, 1)):
                same = _equal_prefix(left, right, size)
                left, right = left.slice(same), right.slice(same)
            else:
                foreign += 1
                right = right.slice(1)
    return 0, foreign + (right.num_rows if right is not None else 0) + sum(batch.num_rows for batch in found)


def _equal_prefix(left: pa.RecordBatch, right: pa.RecordBatch, size: int) -> int:
    """The number of equal leading rows, by bisection; at least one row is equal and not all of `size` are."""
    low, high = 1, size
    while high - low > 1:
        middle = (low + high) // 2
        if left.slice(0, middle).equals(right.slice(0, middle)):
            low = middle
        else:
            high = middle
    return low
