"""Two sides' rows compared: order-free digests of slots of salt x time, then the rows of the slots that differ.

A row key begins with the salt and the event time, nine bytes. Read as one number they are the row's *place*: numbers are
in the order of the keys, and neighbours in time are neighbours of one salt. Cell timestamps are not compared.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline_lib.hbase.mapping import event_time_of
from pipeline_lib.timespan import format_time

Cells = Mapping[bytes, tuple[bytes, int]]
"""Value and timestamp (ms) of each column, as HBase's scan gives them."""
Stored = tuple[bytes, Cells]
Values = Mapping[bytes, bytes]
"""Value of each column: what is digested."""

FIRST_TIME = -(1 << 63)
"""The least event time (ms) that a row key can hold."""
EXAMPLES = 20
"""The most rows of each kind of difference that are shown."""
_PLACE_BYTES = 9
_TIME_BITS = 64
_SUM = (1 << 128) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.msgpack.Encoder().encode


class Range(NamedTuple):
    """The places [start, stop)."""

    start: int
    stop: int

    @property
    def keys(self) -> tuple[bytes, bytes | None]:
        """The row keys [start, stop) of these places; None: to the table's end."""
        start = self.start.to_bytes(_PLACE_BYTES, "big")
        last = self.stop == 1 << 8 * _PLACE_BYTES
        return start, None if last else self.stop.to_bytes(_PLACE_BYTES, "big")


def place(key: bytes) -> int:
    return int.from_bytes(key[:_PLACE_BYTES].ljust(_PLACE_BYTES, b"\0"), "big")


def span_ranges(salts: Iterable[bytes], since_ms: int, until_ms: int) -> list[Range]:
    """The places of an event-time span, in order. Times before 1970 stand behind all others of their salt."""
    later, earlier = (max(since_ms, 0), until_ms), (since_ms, min(until_ms, 0))
    found = []
    for salt in salts:
        base = salt[0] << _TIME_BITS
        found += [Range(base + a, base + b) for a, b in [later] if a < b]
        found += [Range(base + a + (1 << _TIME_BITS), base + b + (1 << _TIME_BITS)) for a, b in [earlier] if a < b]
    return found


def overlap(left: Sequence[Range], right: Sequence[Range]) -> list[Range]:
    """The places that are in both; each is in order and without overlaps of its own."""
    found, ours, theirs = [], 0, 0
    while ours < len(left) and theirs < len(right):
        both = Range(max(left[ours].start, right[theirs].start), min(left[ours].stop, right[theirs].stop))
        if both.start < both.stop:
            found.append(both)
        if left[ours].stop < right[theirs].stop:
            ours += 1
        else:
            theirs += 1
    return found


class Places:
    """Whether a key is in one of some ranges, which are in order."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._starts, self._ranges = [each.start for each in ranges], ranges

    def __contains__(self, key: bytes) -> bool:
        at = place(key)
        number = bisect_right(self._starts, at) - 1
        return number >= 0 and at < self._ranges[number].stop


def row_digest(key: bytes, values: Values) -> int:
    """128 bits of a row's key, columns and values."""
    parts = [key]
    for name in sorted(values):
        parts += name, values[name]
    return int.from_bytes(blake2b(_encode(parts), digest_size=16).digest(), "big")


class Slots:
    """Count and digest (the sum of the rows') of each slot; a slot is the places that agree but for `shift` last bits.

    Where rows fall into more than `limit` slots, neighbours become one: memory is bounded whatever the table's size is.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.shift, self.found = limit, 0, dict[int, tuple[int, int]]()

    @property
    def rows(self) -> int:
        return sum(count for count, _ in self.found.values())

    def add(self, stored: Iterable[tuple[bytes, Values]]) -> "Slots":
        found, shift = self.found, self.shift
        for key, values in stored:
            slot = place(key) >> shift
            count, total = found.get(slot, (0, 0))
            found[slot] = count + 1, total + row_digest(key, values) & _SUM
            if not count and len(found) > self.limit:
                self._widen()
                found, shift = self.found, self.shift
        return self

    def at(self, shift: int) -> dict[int, tuple[int, int]]:
        """The slots, made as wide as this `shift`, which is no less than their own."""
        wider: dict[int, tuple[int, int]] = {}
        for slot, (count, total) in self.found.items():
            before = wider.get(slot >> shift - self.shift, (0, 0))
            wider[slot >> shift - self.shift] = before[0] + count, before[1] + total & _SUM
        return wider

    def _widen(self) -> None:
        while len(self.found) > self.limit and self.shift < _TIME_BITS:  # a slot never has rows of two salts
            self.found, self.shift = self.at(self.shift + 1), self.shift + 1


def joined(parts: Iterable[Slots], limit: int) -> Slots:
    """The slots of rows that were digested apart."""
    whole = Slots(limit)
    for part in parts:
        shift = max(whole.shift, part.shift)
        whole.found, more = whole.at(shift), part.at(shift)
        whole.shift = shift
        for slot, (count, total) in more.items():
            before = whole.found.get(slot, (0, 0))
            whole.found[slot] = before[0] + count, before[1] + total & _SUM
        whole._widen()
    return whole


def differing(left: Slots, right: Slots) -> list[Range]:
    """The places whose rows are not the same, in order; slots beside each other are one range."""
    shift = max(left.shift, right.shift)
    ours, theirs = left.at(shift), right.at(shift)
    found: list[Range] = []
    for slot in sorted(slot for slot in ours.keys() | theirs.keys() if ours.get(slot) != theirs.get(slot)):
        start, stop = slot << shift, slot + 1 << shift
        if found and found[-1].stop == start:
            start = found.pop().start
        found.append(Range(start, stop))
    return found


class Difference(NamedTuple):
    """A row that is not the same on both sides; None where a side does not have it."""

    key: bytes
    left: Cells | None
    right: Cells | None


def unequal(left: Iterable[Stored], right: Iterable[Stored]) -> Iterator[Difference]:
    """The rows that are not the same, of two sides in the order of their keys; holds one row of each."""
    ours, theirs = iter(left), iter(right)
    a, b = next(ours, None), next(theirs, None)
    while a or b:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            yield Difference(a[0], a[1], None)
            a = next(ours, None)
        elif a is None or b[0] < a[0]:
            yield Difference(b[0], None, b[1])
            b = next(theirs, None)
        else:
            if a[1] != b[1] and _values(a[1]) != _values(b[1]):
                yield Difference(a[0], a[1], b[1])
            a, b = next(ours, None), next(theirs, None)


def _values(cells: Cells) -> dict[bytes, bytes]:
    return {name: value for name, (value, _) in cells.items()}


@dataclass
class Differences:
    """How many rows are not the same, and some of them as (kind, event time, id)."""

    only_in_left: int = 0
    only_in_right: int = 0
    different: int = 0
    examples: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.only_in_left + self.only_in_right + self.different

    def add(self, found: Iterable[Difference]) -> "Differences":
        for each in found:
            kind = "only_in_right" if each.left is None else "only_in_left" if each.right is None else "different"
            count = getattr(self, kind) + 1
            setattr(self, kind, count)
            if count <= EXAMPLES:
                self.examples.append((kind, *shown(each.key)))
        return self

    def join(self, other: "Differences") -> None:
        for name in ("only_in_left", "only_in_right", "different"):
            free = EXAMPLES - getattr(self, name)
            self.examples += [each for each in other.examples if each[0] == name][: max(0, free)]
            setattr(self, name, getattr(self, name) + getattr(other, name))


def shown(key: bytes) -> tuple[str, str]:
    """The event time and the id in a row key, for people; a key that is none of a mapping's as hex."""
    try:
        time = text_of(event_time_of(key))
    except (ValueError, OverflowError):
        return "", key.hex()
    name = key[_PLACE_BYTES:].replace(b"\0", b" ").decode(errors="backslashreplace")
    return time, name


def text_of(ms: int) -> str:
    """Raises OverflowError for a time outside of the years 1 to 9999."""
    return format_time(_EPOCH + timedelta(milliseconds=ms))
