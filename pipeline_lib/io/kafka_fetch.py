"""Fetching of whole record batches, through kafka-python's protocol layer.

That brings leader look-up, TLS, SASL and API versions. Fetches name the topic by its id: a topic that was deleted and
made again under the same name is another topic, and is never mixed with the first.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.protocol.consumer import FetchRequest

from pipeline_lib.config import KafkaSettings
from pipeline_lib.errors import LodeError, ServerUnavailable
from pipeline_lib.records.batch import Batch, decode, drop_uncommitted, split
from pipeline_lib.records.offsets import OffsetRange


@dataclass(frozen=True)
class TopicInfo:
    """A topic as it stands on a cluster. The id tells it from others that had or will have its name."""

    name: str
    topic_id: str
    leaders: Mapping[int, int]  # partition -> broker

    @property
    def partitions(self) -> list[int]:
        return sorted(self.leaders)


@dataclass(frozen=True)
class _Fetched:
    next_offset: int  # -1: the response held no complete batch
    committed: list[Batch]


class Fetcher:
    """Reads one partition, from whichever broker leads it."""

    def __init__(
        self, admin: KafkaAdminClient, settings: KafkaSettings, info: TopicInfo, partition: int, fetch_bytes: int
    ) -> None:
        self._admin, self._settings, self._info = admin, settings, info
        self._partition, self._size = partition, fetch_bytes
        self._leader = info.leaders[partition]

    def read(self, span: OffsetRange) -> Iterator[pa.RecordBatch]:
        """The committed records of the range; see Kafka.read."""
        at = span.since
        deadline = self._deadline()
        while at < span.until:
            fetched = self._fetch(at, deadline)
            if fetched.next_offset <= at:
                self._check(deadline, at, "nothing to read")
                continue
            wanted = [b for b in fetched.committed if b.next_offset > at and b.base_offset < span.until]
            yield from decode(wanted, at, span.until)
            at = fetched.next_offset
            deadline = self._deadline()  # from now: what the caller took is not the broker's time

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.timeout_s

    def _fetch(self, at: int, deadline: float) -> _Fetched:
        name = self._info.name
        while True:
            try:
                return self._fetch_once(at)
            except kafka_errors.OffsetOutOfRangeError:
                raise LodeError(
                    f"{name}-{self._partition}: offset {at} expired while it was being read; run again: the next run "
                    "records the gap"
                ) from None
            except (kafka_errors.UnknownTopicIdError, kafka_errors.InconsistentTopicIdError):
                raise LodeError(
                    f"{name}: the topic with id {self._info.topic_id} was deleted while it was read"
                ) from None
            except kafka_errors.KafkaError as error:
                self._check(deadline, at, f"{type(error).__name__}: {error}")
                time.sleep(0.2)
                self._find_leader()

    def _fetch_once(self, at: int) -> _Fetched:
        wanted = FetchRequest.FetchTopic.FetchPartition(
            partition=self._partition, fetch_offset=at, partition_max_bytes=self._size
        )
        topic_id = uuid.UUID(self._info.topic_id)
        request = FetchRequest(
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=self._size,
            isolation_level=1,
            topics=[FetchRequest.FetchTopic(topic=self._info.name, topic_id=topic_id, partitions=[wanted])],
            forgotten_topics_data=[],
            min_version=13,  # the first that names the topic by its id
        )
        answer = self._admin._manager.run(self._send, request)
        _raise_for(answer.error_code)
        part = answer.responses[0].partitions[0]
        _raise_for(part.error_code)
        batches = split(part.records or b"")
        aborted = [(entry.producer_id, entry.first_offset) for entry in part.aborted_transactions or ()]
        return _Fetched(batches[-1].next_offset if batches else -1, drop_uncommitted(batches, aborted))

    async def _send(self, request: Any) -> Any:
        return await self._admin._manager.send(request, node_id=self._leader)

    def _find_leader(self) -> None:
        try:
            (found,) = self._admin.describe_topics([self._info.name])
        except kafka_errors.KafkaError:
            return
        leaders = {part["partition_index"]: part["leader_id"] for part in found["partitions"]}
        self._leader = int(leaders.get(self._partition, self._leader))

    def _check(self, deadline: float, at: int, what: str) -> None:
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"Kafka at {self._settings.bootstrap_servers}: no progress for {self._settings.timeout_s} s: "
                f"{self._info.name}-{self._partition} at offset {at}: {what}"
            )


def _raise_for(code: int) -> None:
    if code:
        raise kafka_errors.for_code(code)()
