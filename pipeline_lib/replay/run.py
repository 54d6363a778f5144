"""A replay, from plan to verification, whatever its sink.

The entry s3://.../replays/ID.json is written once when a replay starts (with its whole plan, so that a resumed one
does what was approved whatever the archive has become) and once when it ends.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from pipeline_lib.archive.commits import archive_path
from pipeline_lib.archive.log import kafka_if_up, read_archive
from pipeline_lib.archive.segment import Segment, read_segment
from pipeline_lib.config import Config
from pipeline_lib.datasets import replay_key
from pipeline_lib.errors import ConfigError, TargetRefuses, VerificationFailed
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact
from pipeline_lib.replay.plan import ReplayPlan, ReplayRequest, plan_replay, select_records

READ_RECORDS = 50_000
"""Records that are handed on together, of one segment."""
EXAMPLES = 20
"""How many of the things that are missing an entry names."""


@dataclass(frozen=True)
class Replayed:
    """What a run wrote, the segments that it left out because they are corrupt, and what the target refused."""

    records: int
    corrupt: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """The target against the plan.

    Attributes:
        foreign: what stands there beside the replay's records.
        examples: some of those that are missing.
        advice: what to do where some are missing.
    """

    records: int
    missing: int
    foreign: int
    examples: tuple[str, ...] = ()
    advice: str = ""


class Sink(Protocol):
    """Where a replay writes: one module of this package each."""

    @property
    def name(self) -> str: ...

    def target(self, topic: str) -> dict[str, Any]:
        """Where the records go and how, as JSON values: part of the plan, so that its digest covers it."""

    def complete(self, plan: ReplayPlan) -> ReplayPlan:
        """The plan with what only archive and target together tell. Raises ConfigError where it cannot be done."""

    def describe(self, plan: ReplayPlan) -> str:
        """The target in a few words."""

    def problems(self, plan: ReplayPlan) -> list[str]:
        """What the target would lose or change, each with what to do."""

    def begin(self, plan: ReplayPlan) -> dict[str, Any]:
        """Before the first record: notes the target's state, as JSON values that the entry keeps."""

    def repeatable(self, plan: ReplayPlan) -> bool:
        """Whether a replay that is done is carried out when it is asked for again: that adds nothing twice."""

    def check_resumable(self, plan: ReplayPlan) -> None:
        """Raises TargetRefuses where the target is no longer the one that the replay began with."""

    def write(self, plan: ReplayPlan, begun: Mapping[str, Any], skip_corrupt: bool) -> Replayed:
        """Writes what is not yet written.

        Raises:
            VerificationFailed: a segment is corrupt; nothing of it was written.
        """

    def verify(self, plan: ReplayPlan, begun: Mapping[str, Any], written: Replayed, skip_corrupt: bool) -> Verified:
        """Reads back what was written, in this run or earlier ones; `written` is the answer of `write`."""


def plan(config: Config, request: ReplayRequest, sink: Sink) -> ReplayPlan:
    """Reads the archive's commits and the target's settings; changes nothing.

    Raises:
        ConfigError: there is no archive, or nothing in the span.
        VerificationFailed: the archive's commit chain is broken.
    """
    with kafka_if_up(config.kafka) as kafka:
        path, commits = read_archive(config, kafka, request.topic)
    if not commits:
        raise ConfigError(f"topic {request.topic!r} was never archived: there is no table {path}")
    return sink.complete(plan_replay(path, commits, request, sink.name, sink.target(request.topic)))


def execute(config: Config, request: ReplayRequest, sink: Sink, digest: str, skip_corrupt: bool) -> dict[str, Any]:
    """Carries out the plan with this digest, or goes on with it, and verifies; returns its entry.

    Raises:
        TargetRefuses: the target would lose or change records, or is not the one that the replay began with.
        VerificationFailed: a segment is corrupt; nothing of it was written.
    """
    store = S3(config.s3)
    entry = _started(config, store, request, sink, digest)
    planned = ReplayPlan.from_dict(entry["plan"])
    if entry["status"] == "done" and not sink.repeatable(planned):
        fact("already_done", replay=digest)
        return entry
    sink.check_resumable(planned)
    written = sink.write(planned, entry["begun"], skip_corrupt)
    left_out = {"corrupt": len(written.corrupt), "refused": len(written.refused)}
    fact("replayed", replay=digest, records=written.records, **left_out)
    verified = sink.verify(planned, entry["begun"], written, skip_corrupt)
    entry |= {"finished": datetime.now(UTC).isoformat(), **asdict(verified), "corrupt": list(written.corrupt)}
    entry |= {"refused": len(written.refused), "refused_examples": written.refused[:EXAMPLES]}
    entry["status"] = "differs" if verified.missing else "done"
    store.put(replay_key(digest), json.dumps(entry).encode())
    fact("verified", replay=digest, status=entry["status"], records=verified.records, missing=verified.missing)
    return entry


def _started(config: Config, store: S3, request: ReplayRequest, sink: Sink, digest: str) -> dict[str, Any]:
    """The entry of the replay; begins it where there is none."""
    if (known := store.get(replay_key(digest))) is not None:
        return dict(json.loads(known))
    planned = plan(config, request, sink)
    if planned.id != digest:
        raise ConfigError(
            f"--execute {digest}: these options now make the plan {planned.id}; look at it again before it is executed"
        )
    if problems := sink.problems(planned):
        raise TargetRefuses("\n".join(problems))
    entry = {
        "format": 1,
        "id": planned.id,
        "status": "started",
        "sink": planned.sink,
        "topic": planned.topic,
        "target": sink.describe(planned),
        "started": datetime.now(UTC).isoformat(),
        "begun": sink.begin(planned),
        "plan": planned.to_dict(),
    }
    if not store.put_if_absent(replay_key(digest), json.dumps(entry).encode()):
        return _started(config, store, request, sink, digest)
    fact("started", replay=digest, segments=len(planned.segments), target=entry["target"])
    return entry


def read_planned(
    store: S3, plan: ReplayPlan, segments: Sequence[Segment], skip_corrupt: bool, since_offset: int = 0
) -> Iterator[pa.RecordBatch | Segment]:
    """The plan's records of some segments as SEGMENT rows, in order, from an offset on; a corrupt segment itself where
    it is to be skipped.

    Raises:
        VerificationFailed: a segment is corrupt; none of its records was handed on.
    """
    path = archive_path(plan.cluster, plan.topic)
    for segment in segments:
        if segment.until <= since_offset:
            continue
        try:
            rows = read_segment(segment, store.get(f"{path}/{segment.path}"))
        except VerificationFailed as error:
            if not skip_corrupt:
                raise
            fact("corrupt_segment_skipped", segment=segment.path, reason=error)
            yield segment
            continue
        for batch in rows.iter_batches(batch_size=READ_RECORDS):
            whole = pa.RecordBatch.from_struct_array(batch.to_struct_array())
            wanted = select_records(whole, plan.span, plan.by, since_offset)
            if wanted.num_rows:
                yield wanted


def check_entry(entry: Mapping[str, Any]) -> None:
    """Raises what the end of a replay means for its exit code."""
    if entry["status"] == "differs":
        advice = f". {entry['advice']}" if entry.get("advice") else ""
        raise VerificationFailed(
            f"replay {entry['id']}: {entry['missing']} records are not in the target as they were archived{advice}"
        )


def summary(plan: ReplayPlan, target: str, problems: Sequence[str]) -> dict[str, Any]:
    """What a plan is, for a person who decides about it."""
    return {
        "digest": plan.id,
        "topic": f"{plan.topic} ({plan.topic_id})",
        "span": f"{plan.span} by {plan.by}",
        "target": target,
        "partitions": ", ".join(map(str, plan.partitions)),
        "segments": len(plan.segments),
        "records": f"{'' if plan.exact else 'at most '}{plan.most_records:,}",
        "bytes in the archive": sum(segment.bytes for segment in plan.segments),
        "warnings": "\n".join(problems) or "none",
    }
