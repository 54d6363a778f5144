"""The archive: what a batch reads, what its commit says, and how commits prove each other.

Dataset: s3://BUCKET/PREFIX/archive/CLUSTER/TOPIC, a Delta table of raw Kafka records, one segment an object. Every Lode
commit carries one JSON value with the ranges, gaps and segments that it made visible and the digest of the commit
before it, so that a commit that was lost, changed or slipped in shows.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_lib.archive.segment import Segment
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.records.offsets import OffsetRange

FORMAT = 1


@dataclass(frozen=True)
class ArchiveCommit:
    """What one archive run made visible. `covers` is [from, until) per partition, gaps included."""

    number: int
    cluster: str
    topic: str
    topic_id: str
    run: str
    covers: Mapping[int, tuple[int, int]]
    gaps: tuple[OffsetRange, ...]
    segments: tuple[Segment, ...]
    previous: str

    def to_json(self) -> str:
        values = {
            "format": FORMAT,
            "number": self.number,
            "cluster": self.cluster,
            "topic": self.topic,
            "topic_id": self.topic_id,
            "run": self.run,
            "covers": {str(p): list(span) for p, span in self.covers.items()},
            "gaps": [[gap.partition, gap.since, gap.until] for gap in self.gaps],
            "segments": [segment.as_dict() for segment in self.segments],
            "previous": self.previous,
        }
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "ArchiveCommit":
        """Raises VerificationFailed where the text is no commit of this format."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("format") != FORMAT:
                raise VerificationFailed(
                    f"archive commit {values.get('number')} has a format that this version cannot read"
                )
            return cls(
                **values
                | {
                    "covers": {int(p): (span[0], span[1]) for p, span in values["covers"].items()},
                    "gaps": tuple(OffsetRange(*gap) for gap in values["gaps"]),
                    "segments": tuple(Segment.from_dict(segment) for segment in values["segments"]),
                }
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise VerificationFailed(f"an archive commit was changed: {type(error).__name__}: {error}") from None


def archive_path(cluster: str, topic: str) -> str:
    return f"archive/{cluster}/{topic}"


def archive_cluster(path: str) -> str:
    """The cluster id in the path of an archive."""
    return path.split("/")[1]


def chain_app_id() -> str:
    """The application transaction that numbers Lode's commits: two that follow the same commit cannot both be made."""
    return "lode:chain"


def digest(commit: str) -> str:
    return hashlib.sha256(commit.encode()).hexdigest()


def read_chain(commits: Sequence[str], newest: int | None) -> list[ArchiveCommit]:
    """The commits in order, after a check that none is missing, changed or slipped in.

    Args:
        commits: their JSON, oldest first.
        newest: the number of the newest, as the chain's application transaction tells it; None where there is none.

    Raises:
        VerificationFailed: the chain is broken; says where.
    """
    before, parsed = "", []
    for number, text in enumerate(commits, start=1):
        commit = ArchiveCommit.from_json(text)
        if commit.number != number or commit.previous != before:
            raise VerificationFailed(
                f"archive commit {commit.number} does not follow commit {number - 1}: a commit is missing or was changed"
            )
        parsed.append(commit)
        before = digest(text)
    if (newest or 0) != len(parsed):
        raise VerificationFailed(f"the archive's newest commit is number {newest}, but {len(parsed)} can be read")
    return parsed


def check_contiguous(commits: Iterable[ArchiveCommit]) -> None:
    """Raises VerificationFailed unless the commits' ranges join without a hole or an overlap, for each topic id."""
    at: dict[tuple[str, int], int] = {}
    for commit in commits:
        for partition, (since, until) in commit.covers.items():
            expected = at.get((commit.topic_id, partition), 0)
            if since != expected:
                raise VerificationFailed(
                    f"archive commit {commit.number}: partition {partition} goes on at offset {since} instead of {expected}"
                )
            at[commit.topic_id, partition] = until
        for segment in commit.segments:
            since, until = commit.covers.get(segment.partition, (0, 0))
            if not since <= segment.since < segment.until <= until:
                raise VerificationFailed(
                    f"archive commit {commit.number}: segment {segment.path} lies outside its range"
                )
