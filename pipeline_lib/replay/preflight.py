"""Preflight of a replay to Kafka: would the target topic lose or change the records? Asked before the first one is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipeline_lib.replay.plan import ReplayPlan

Timestamps = Literal["original", "now"]

RECORD_OVERHEAD = 128
"""Bytes that a record may take in a batch beside key, value and headers: batch header 61, lengths and offsets."""


@dataclass(frozen=True)
class KafkaTarget:
    """Where a replay's records go, and with which timestamps."""

    topic: str
    topic_id: str
    timestamps: Timestamps


def preflight(
    plan: ReplayPlan, target: KafkaTarget, partitions: Sequence[int], settings: Mapping[str, str], now: datetime
) -> list[str]:
    """What the target topic would lose or change of the plan's records, each with what to do; empty: nothing.

    Args:
        partitions: the target's.
        settings: the target topic's effective settings.
    """
    original = target.timestamps == "original"
    oldest = min(segment.timestamps[0] for segment in plan.segments)
    newest = max(segment.timestamps[1] for segment in plan.segments)
    if plan.by == "timestamp":
        oldest, newest = max(oldest, plan.span.since_ms), min(newest, plan.span.until_ms - 1)
    now_ms = int(now.timestamp() * 1000)
    checks = [
        _missing_partitions(plan, target.topic, partitions),
        _cleanup(settings, original, now_ms - oldest),
        _too_large(plan, settings),
        _retained_bytes(plan, settings),
    ]
    if original:
        checks += [
            _changed_timestamps(settings, oldest),
            _refused_timestamps(settings, now_ms - oldest, newest - now_ms),
        ]
    return [problem for problem in checks if problem]


def _missing_partitions(plan: ReplayPlan, topic: str, partitions: Sequence[int]) -> str:
    missing = sorted(set(plan.partitions) - set(partitions))
    return f"{topic} has no partition {missing}: add partitions, or choose with --partition" if missing else ""


def _cleanup(settings: Mapping[str, str], original: bool, age_ms: int) -> str:
    policy = settings.get("cleanup.policy", "delete")
    if "compact" in policy:
        return f"cleanup.policy={policy} keeps only the last record of each key: replay to a topic with cleanup.policy=delete"
    retention = int(settings.get("retention.ms", "-1"))
    if original and "delete" in policy and 0 <= retention < age_ms:
        return (
            f"retention.ms={retention} is shorter than the age of the oldest record ({_age(age_ms)}): the broker would "
            f"delete it within minutes. Set retention.ms above {age_ms} (or -1), or use --timestamps now"
        )
    return ""


def _too_large(plan: ReplayPlan, settings: Mapping[str, str]) -> str:
    largest = max(segment.largest_record for segment in plan.segments)
    limit = int(settings.get("max.message.bytes", 1 << 20))
    if largest + RECORD_OVERHEAD <= limit:
        return ""
    return f"max.message.bytes={limit} is too small for a record of {largest} bytes: set it to {largest + RECORD_OVERHEAD} or more"


def _retained_bytes(plan: ReplayPlan, settings: Mapping[str, str]) -> str:
    """The archive's own size says little: the broker may compress worse, or not at all. So the bound is what no
    compression could exceed."""
    limit = int(settings.get("retention.bytes", "-1"))
    most = max(sum(s.records * (s.largest_record + RECORD_OVERHEAD) for s in p) for p in plan.partitions.values())
    if limit < 0 or most <= limit:
        return ""
    return f"retention.bytes={limit} may be less than a partition's records take ({most} bytes at most): set it to -1"


def _changed_timestamps(settings: Mapping[str, str], oldest: int) -> str:
    if settings.get("message.timestamp.type") == "LogAppendTime":
        return "message.timestamp.type=LogAppendTime replaces the timestamps: set CreateTime, or use --timestamps now"
    if oldest <= 0:
        return "records without a timestamp (0 or less) would get the present time: use --timestamps now"
    return ""


def _refused_timestamps(settings: Mapping[str, str], age_ms: int, ahead_ms: int) -> str:
    before = int(settings.get("message.timestamp.before.max.ms", 2**63 - 1))
    after = int(settings.get("message.timestamp.after.max.ms", 2**63 - 1))
    if age_ms > before:
        return f"message.timestamp.before.max.ms={before} refuses records as old as {_age(age_ms)}: raise it, or use --timestamps now"
    if ahead_ms > after:
        return f"message.timestamp.after.max.ms={after} refuses records {_age(ahead_ms)} ahead of now: raise it, or use --timestamps now"
    return ""


def _age(ms: int) -> str:
    return str(timedelta(seconds=ms // 1000))
