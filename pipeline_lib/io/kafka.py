"""Kafka, for reading and for administration, through kafka-python."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic, OffsetSpec
from kafka.protocol.consumer import IsolationLevel
from kafka.structs import OffsetAndMetadata
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from pipeline_lib.config import KafkaSettings
from pipeline_lib.errors import ConfigError, ServerUnavailable
from pipeline_lib.io.kafka_fetch import Fetcher, TopicInfo
from pipeline_lib.records.offsets import OffsetRange


class Kafka:
    """One cluster. Use as a context manager: it holds connections."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        try:
            self._admin = KafkaAdminClient(**_client_options(settings))
        except kafka_errors.KafkaError as error:
            raise _unavailable(settings, error) from None

    def __enter__(self) -> "Kafka":
        return self

    def __exit__(self, *exc: object) -> None:
        self._admin.close()

    def cluster_id(self) -> str:
        return str(self._call("describe_cluster")["cluster_id"])

    def topics(self) -> list[str]:
        """The names of the topics that are not Kafka's own."""
        return sorted(name for name in self._call("list_topics") if not name.startswith("__"))

    def describe(self, topic: str) -> TopicInfo:
        """Raises ConfigError where there is no such topic."""
        (found,) = self._call("describe_topics", [topic])
        if found["error_code"]:
            known = ", ".join(self.topics()) or "none"
            raise ConfigError(f"topic {topic!r} does not exist at {self.settings.bootstrap_servers}; it has: {known}")
        leaders = {part["partition_index"]: part["leader_id"] for part in found["partitions"]}
        return TopicInfo(topic, str(found["topic_id"]), leaders)

    def offsets(self, info: TopicInfo) -> dict[int, tuple[int, int]]:
        """(earliest offset, last stable offset) of each partition."""
        earliest = self._list_offsets(info, OffsetSpec.EARLIEST)
        return {p: (earliest[p], end) for p, end in self._list_offsets(info, OffsetSpec.LATEST).items()}

    def offsets_at(self, info: TopicInfo, time_ms: int) -> dict[int, int]:
        """The first offset of each partition whose record is of that time or later; absent where there is none."""
        return {p: at for p, at in self._list_offsets(info, time_ms).items() if at >= 0}

    def _list_offsets(self, info: TopicInfo, spec: Any) -> dict[int, int]:
        wanted = {TopicPartition(info.name, p): spec for p in info.partitions}
        found = self._call("list_partition_offsets", wanted, isolation_level=IsolationLevel.READ_COMMITTED)
        return {tp.partition: answer.offset for tp, answer in found.items()}

    def average_record_bytes(self, info: TopicInfo, bounds: Mapping[int, tuple[int, int]]) -> float:
        """Bytes on the broker's disk per offset, over the whole topic; 1 KiB where it is empty.

        Args:
            bounds: the answer of `offsets`.
        """
        count = sum(end - start for start, end in bounds.values())
        sizes: dict[int, int] = {}
        directories = [entry for broker in self._call("describe_log_dirs") for entry in broker["log_dirs"]]
        for topic in (topic for directory in directories for topic in directory["topics"]):
            if topic["name"] == info.name:
                sizes |= {log["partition_index"]: log["partition_size"] for log in topic["partitions"]}
        return sum(sizes.values()) / count if count and sizes else 1024.0

    def topic_settings(self, topic: str) -> dict[str, str]:
        """The topic's effective settings, by name."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = self._call("describe_configs", [resource], config_filter="all")
        return {name: str(value["value"]) for name, value in found["topic"][topic].items()}

    def create_topic(self, topic: str, partitions: int, settings: Mapping[str, str] | None = None) -> TopicInfo:
        self._call("create_topics", [NewTopic(topic, partitions, -1, topic_configs=dict(settings or {}))])
        self._admin.wait_for_topics([topic], timeout_ms=self.settings.timeout_s * 1000)
        return self.describe(topic)

    def add_partitions(self, topic: str, total: int) -> None:
        self._call("create_partitions", {topic: NewPartitions(total)})

    def delete_topic(self, topic: str) -> None:
        """Deletes the topic and waits until it is gone."""
        self._call("delete_topics", [topic])
        deadline = time.monotonic() + self.settings.timeout_s
        while topic in self._call("list_topics"):
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"topic {topic!r} is still there {self.settings.timeout_s} s after its deletion"
                )
            time.sleep(0.1)

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Drops the records below an offset of each partition, as retention does."""
        self._call("delete_records", {TopicPartition(topic, p): offset for p, offset in before.items()})

    def group_offsets(self, group: str) -> dict[tuple[str, int], int]:
        """The offsets that a consumer group has committed, by topic and partition."""
        found = self._call("list_group_offsets", {group: None})[group]
        return {(tp.topic, tp.partition): answer.offset for tp, answer in found.items() if answer.offset >= 0}

    def set_group_offsets(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Commits offsets for a group without members: for lag tools, and for the start of a replay."""
        wanted = {TopicPartition(topic, p): OffsetAndMetadata(at, "", None) for p, at in offsets.items()}
        self._call("alter_group_offsets", group, wanted)

    def read(self, info: TopicInfo, span: OffsetRange, fetch_bytes: int) -> Iterator[pa.RecordBatch]:
        """The committed records of an offset range as RAW_RECORD batches, bounded in memory, in order.

        Ends when the range is passed, not when its last offset is seen: that may be a marker or compacted away.

        Raises:
            CorruptBatch: damage in the log or on the way.
            LodeError: offsets of the range expired or the topic was deleted while it was read.
            ServerUnavailable: no progress for the time-out.
        """
        return Fetcher(self._admin, self.settings, info, span.partition, fetch_bytes).read(span)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """An administrative request; errors that pass by themselves (an election, a coordinator that loads) are
        waited for."""
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, kafka_errors.KafkaError) and error.retriable),
            wait=wait_fixed(0.2),
            stop=stop_after_delay(self.settings.timeout_s),
            reraise=True,
        )
        try:
            return retrying(getattr(self._admin, method), *args, **kwargs)
        except kafka_errors.KafkaError as error:
            raise _unavailable(self.settings, error) from error


def _unavailable(settings: KafkaSettings, error: Exception) -> ServerUnavailable:
    return ServerUnavailable(f"Kafka at {settings.bootstrap_servers}: {type(error).__name__}: {error}")


def _client_options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
        "client_id": "lode",
        "request_timeout_ms": settings.timeout_s * 1000,
        "bootstrap_timeout_ms": settings.timeout_s * 1000,
        "receive_message_max_bytes": 1 << 30,
        "receive_buffer_bytes": 4 << 20,
    }
    if settings.sasl_mechanism:
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.password.get_secret_value() if settings.password else None
    if settings.ssl_cafile:
        options["ssl_cafile"] = settings.ssl_cafile
    return options
