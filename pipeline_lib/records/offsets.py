"""Ranges of offsets."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class OffsetRange:
    """Offsets [since, until) of one partition. Offsets may be sparse: the difference is no record count."""

    partition: int
    since: int
    until: int

    def split(self, most: int) -> Iterator["OffsetRange"]:
        for at in range(self.since, self.until, most):
            yield OffsetRange(self.partition, at, min(at + most, self.until))
