"""The archive's chain of commits: what was lost, changed or slipped in shows."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.archive.commits import ArchiveCommit, check_contiguous, digest, read_chain
from pipeline_lib.archive.segment import Segment
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.records.offsets import OffsetRange


def segment(partition: int, since: int, until: int) -> Segment:
    path = f"topic_id=id/partition={partition}/{since}-{until}.parquet"
    times = (1_793_491_200_000, 1_793_491_200_005)
    return Segment(path, "id", partition, since, until, 3, 100, "ab" * 32, 17, (since, until - 1), times, None)


def commit(number: int, previous: str, covers: dict[int, tuple[int, int]]) -> ArchiveCommit:
    gaps = (OffsetRange(0, 0, 2),) if number == 1 else ()
    segments = tuple(segment(p, *span) for p, span in covers.items())
    return ArchiveCommit(number, "cluster", "topic", "id", f"run{number}", covers, gaps, segments, previous)


def chain(length: int = 5) -> list[str]:
    texts: list[str] = []
    for number in range(1, length + 1):
        covers = dict.fromkeys(range(2), (10 * (number - 1), 10 * number))
        texts.append(commit(number, digest(texts[-1]) if texts else "", covers).to_json())
    return texts


def test_a_whole_chain_is_read() -> None:
    texts = chain()
    commits = read_chain(texts, 5)
    assert [found.to_json() for found in commits] == texts
    assert commits[0].gaps == (OffsetRange(0, 0, 2),)
    assert commits[1].segments[1].timestamps == (1_793_491_200_000, 1_793_491_200_005)
    check_contiguous(commits)
    assert read_chain([], None) == []


@pytest.mark.parametrize("lost", range(5))
def test_a_lost_commit_shows(lost: int) -> None:
    texts = chain()
    del texts[lost]
    with pytest.raises(VerificationFailed, match=r"missing|newest commit is number 5, but 4"):
        read_chain(texts, 5)


def test_a_lost_log_shows() -> None:
    with pytest.raises(VerificationFailed, match="number 5, but 0"):
        read_chain([], 5)
    with pytest.raises(VerificationFailed, match="number None, but 5"):
        read_chain(chain(), None)


@pytest.mark.parametrize("changed", range(4))
def test_a_changed_commit_shows(changed: int) -> None:
    texts = chain()
    texts[changed] = texts[changed].replace('"records":3', '"records":4')
    with pytest.raises(VerificationFailed, match=f"commit {changed + 2} does not follow commit {changed + 1}"):
        read_chain(texts, 5)


def test_a_slipped_in_doubled_or_moved_commit_shows() -> None:
    texts = chain()
    alien = commit(3, digest(texts[1]), {0: (20, 25)}).to_json()
    for wrong in ([*texts[:2], alien, *texts[2:]], [*texts[:2], alien, *texts[3:]], [*texts, texts[-1]]):
        with pytest.raises(VerificationFailed):
            read_chain(wrong, len(wrong))
    with pytest.raises(VerificationFailed):
        read_chain([texts[1], texts[0], *texts[2:]], 5)


def test_another_format_is_refused() -> None:
    values = json.loads(chain(1)[0]) | {"format": 2}
    with pytest.raises(VerificationFailed, match="commit 1 has a format"):
        read_chain([json.dumps(values)], 1)


@pytest.mark.parametrize("text", ["", "{}", "null", "[]", '{"format":1}', '{"format":1,"number":1,"extra":2}'])
def test_what_is_no_commit_is_refused(text: str) -> None:
    with pytest.raises(VerificationFailed, match=r"archive commit|commit is missing"):
        read_chain([text], 1)


@given(st.data())
def test_any_changed_byte_shows(data: st.DataObject) -> None:
    texts = chain(3)
    which = data.draw(st.integers(0, 1))  # nothing follows the last: its own bytes are pinned by the next commit only
    at = data.draw(st.integers(0, len(texts[which]) - 1))
    other = data.draw(st.sampled_from('0a"{} '))
    changed = texts[which][:at] + other + texts[which][at + 1 :]
    if changed == texts[which]:
        return
    with pytest.raises(VerificationFailed):
        read_chain([*texts[:which], changed, *texts[which + 1 :]], 3)


def test_a_hole_and_an_overlap_show() -> None:
    first, second, third = read_chain(chain(3), 3)
    with pytest.raises(VerificationFailed, match="commit 3: partition 0 goes on at offset 20 instead of 10"):
        check_contiguous([first, third])
    with pytest.raises(VerificationFailed, match="goes on at offset 0 instead of 10"):
        check_contiguous([first, first])
    with pytest.raises(VerificationFailed, match="goes on at offset 10 instead of 0"):
        check_contiguous([second])
    moved = replace(second, topic_id="recreated", covers={0: (0, 5)}, segments=())
    check_contiguous([first, moved, second, third])  # a topic that was made again starts at 0


@pytest.mark.parametrize("span", [(9, 20), (10, 21), (15, 15), (16, 15)])
def test_a_segment_outside_its_range_shows(span: tuple[int, int]) -> None:
    first, second, _ = read_chain(chain(3), 3)
    with pytest.raises(VerificationFailed, match="lies outside its range"):
        check_contiguous([first, replace(second, segments=(segment(0, *span),))])


def test_a_segment_of_a_partition_that_is_not_covered_shows() -> None:
    first, second, _ = read_chain(chain(3), 3)
    with pytest.raises(VerificationFailed, match="lies outside its range"):
        check_contiguous([first, replace(second, segments=(segment(7, 10, 20),))])
