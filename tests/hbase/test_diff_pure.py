"""The comparison's arithmetic: digests that no order changes, and slots that find exactly the rows that differ."""

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.hbase.diff import (
    EXAMPLES,
    FIRST_TIME,
    Cells,
    Difference,
    Differences,
    Places,
    Range,
    Slots,
    differing,
    joined,
    overlap,
    place,
    row_digest,
    shown,
    span_ranges,
    unequal,
)
from pipeline_lib.hbase.mapping import HBaseMapping, HBaseVersion, row_key
from pipeline_lib.hbase.sides import time_chunks
from pipeline_lib.hbase.sync import change

MAPPING = HBaseMapping(salt_buckets=4, key=["id"], versions={"v1": HBaseVersion(table="t")})
Rows = dict[bytes, Cells]

times = st.one_of(st.integers(-50, 50), st.integers(0, 1 << 41), st.integers(FIRST_TIME, (1 << 63) - 1))
keys = st.builds(lambda time, name: row_key(MAPPING, time, [name]), times, st.text(max_size=4))
columns = st.sampled_from([b"e:", b"e:a", b"e:ab", b"e:b"])
cells = st.dictionaries(columns, st.tuples(st.binary(max_size=3), st.integers(0, 9)), min_size=1)
tables = st.dictionaries(keys, cells, max_size=40)


def values(found: Cells) -> dict[bytes, bytes]:
    return {name: value for name, (value, _) in found.items()}


def slots(limit: int, table: Iterable[tuple[bytes, Cells]]) -> Slots:
    return Slots(limit).add((key, values(found)) for key, found in table)


@given(tables, st.integers(1, 50), st.randoms())
def test_no_order_and_no_cut_changes_the_slots(table: Rows, limit: int, random: Random) -> None:
    shuffled = list(table.items())
    random.shuffle(shuffled)
    cut = random.randint(0, len(shuffled))
    whole = slots(limit, sorted(table.items()))
    assert not differing(whole, slots(limit, shuffled))
    assert not differing(whole, joined([slots(limit, shuffled[:cut]), slots(limit, shuffled[cut:])], limit))
    assert whole.rows == len(table)


@given(tables, tables, st.data())
@settings(max_examples=300)
def test_the_comparison_finds_exactly_what_is_not_the_same(shared: Rows, other: Rows, data: st.DataObject) -> None:
    """The rows are read again only where slots differ: what slots hide would be missing here."""
    left, right = dict(shared), dict(shared) | other
    for key in data.draw(st.lists(st.sampled_from(sorted(shared)), max_size=3)) if shared else []:
        right.pop(key, None)
    for key in data.draw(st.lists(st.sampled_from(sorted(shared)), max_size=3)) if shared else []:
        right[key] = data.draw(cells)
    limits = st.integers(1, 60)
    found = differing(
        slots(data.draw(limits), left.items()), slots(data.draw(limits), sorted(right.items(), reverse=True))
    )
    places = Places(found)
    read = [[row for row in sorted(side.items()) if row[0] in places] for side in (left, right)]
    changed = {key for key in left.keys() & right.keys() if values(left[key]) != values(right[key])}
    differences = list(unequal(*read))
    assert [each.key for each in differences] == sorted((left.keys() ^ right.keys()) | changed)
    assert all((each.left, each.right) == (left.get(each.key), right.get(each.key)) for each in differences)
    counted = Differences().add(differences)
    assert counted.only_in_left == len(left.keys() - right.keys())
    assert counted.only_in_right == len(right.keys() - left.keys())
    assert counted.different == len(changed)


@given(tables, st.integers(1, 30))
def test_slots_are_bounded_down_to_one_a_salt(table: Rows, limit: int) -> None:
    found = slots(limit, table.items()).found
    assert len(found) <= max(limit, len({key[0] for key in table}))


def test_what_a_digest_covers() -> None:
    row = {b"e:a": b"1", b"e:b": b"2"}
    assert row_digest(b"k", row) == row_digest(b"k", {b"e:b": b"2", b"e:a": b"1"}), "order"
    others = [
        (b"l", row),
        (b"k", {b"e:a": b"1"}),
        (b"k", {b"e:a": b"2", b"e:b": b"1"}),
        (b"k", {b"e:a": b"1e:b", b"": b"2"}),
        (b"ke:a", {b"1": b"e:b", b"2": b""}),
    ]
    assert len({row_digest(*each) for each in [(b"k", row), *others]}) == 6


@given(keys, times, times)
def test_a_span_has_just_the_keys_of_its_event_times(key: bytes, since: int, until: int) -> None:
    ranges = span_ranges(MAPPING.salts, since, until)
    assert ranges == sorted(ranges)
    inside = since <= int.from_bytes(key[1:9], "big", signed=True) < until
    assert (key in Places(ranges)) == inside
    bounds = [each.keys for each in ranges]
    assert any(start <= key and (stop is None or key < stop) for start, stop in bounds) == inside


def test_overlap_keeps_what_is_in_both() -> None:
    left, right = [Range(0, 10), Range(20, 30)], [Range(5, 22), Range(25, 26), Range(29, 40)]
    assert overlap(left, right) == [Range(5, 10), Range(20, 22), Range(25, 26), Range(29, 30)]
    assert overlap(left, []) == []


def test_the_last_range_reaches_to_the_end_of_the_table() -> None:
    assert Range(place(b"\xff" * 9), 1 << 72).keys == (b"\xff" * 9, None)


def test_examples_are_bounded_and_counts_are_not() -> None:
    one = [Difference(row_key(MAPPING, at, ["x"]), {b"e:a": (b"1", 1)}, None) for at in range(100)]
    whole = Differences().add(one)
    whole.join(Differences().add(one))
    assert (whole.only_in_left, len(whole.examples), whole.rows) == (200, EXAMPLES, 200)
    assert whole.examples[1] == ("only_in_left", "1970-01-01T00:00:00.001000Z", "x")


@pytest.mark.parametrize("key", [b"\0", b"\0" + b"\x7f" * 8 + b"x"])
def test_a_key_that_is_none_of_ours_is_shown_all_the_same(key: bytes) -> None:
    assert shown(key) == ("", key.hex())


def test_chunks_follow_the_density_of_the_records() -> None:
    chunks = time_chunks([(0, 999, 1000), (500, 999, 1000)], -5, 5_000, 500)
    assert chunks[0][0] == -5
    assert chunks[-1][1] == 5_000
    assert [until for _, until in chunks[:-1]] == [since for since, _ in chunks[1:]]
    held = [max(0, min(b, 1000) - max(a, 0)) + 2 * max(0, min(b, 1000) - max(a, 500)) for a, b in chunks]
    assert max(held) <= 501
    assert 4 <= len(chunks) <= 6
    assert time_chunks([], 0, 9, 500) == [(0, 9)]
    assert time_chunks([(4, 4, 100_000)], 0, 9, 500) == [(0, 5), (5, 9)], "one moment is not cut"


def test_a_change_writes_only_what_differs_and_never_over_newer_cells() -> None:
    source: Cells = {b"e:a": (b"1", 5), b"e:b": (b"2", 6)}
    todo = change(Difference(b"k", source, None), may_delete=False)
    assert [(row.cells, row.timestamp) for row in todo.puts] == [({b"e:a": b"1"}, 5), ({b"e:b": b"2"}, 6)]
    assert todo.kinds == ("add",)
    todo = change(Difference(b"k", source, {b"e:a": (b"1", 9), b"e:b": (b"x", 6)}), may_delete=False)
    assert (todo.kinds, [row.cells for row in todo.puts]) == (("replace",), [{b"e:b": b"2"}])
    todo = change(Difference(b"k", source, {b"e:a": (b"x", 6), b"e:c": (b"y", 1)}), may_delete=True)
    assert (todo.kinds, [row.cells for row in todo.puts]) == (("newer_in_target", "other_columns"), [{b"e:b": b"2"}])
    assert todo.delete is None
    assert change(Difference(b"k", None, source), may_delete=False).kinds == ("only_in_target",)
    assert change(Difference(b"k", None, source), may_delete=True).delete == (b"k", 6)
    large: Cells = {b"e:a": (bytes(11 << 20), 1)}
    assert change(Difference(b"k", large, None), may_delete=False).kinds == ("too_large",)
