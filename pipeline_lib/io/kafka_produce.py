"""Kafka, for writing, through confluent-kafka: 231k records/s in transactions, where kafka-python's producer does 5k."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from pipeline_lib.config import KafkaSettings
from pipeline_lib.errors import LodeError, LostRace, ServerUnavailable

Headers = list[tuple[str, str | bytes | None]]
_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
MAX_MESSAGE_BYTES = 1_000_000_000  # the broker's own limit decides; librdkafka's default of 1 MB would be a second one


def _options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security_protocol,
        "client.id": "lode",
        "log_level": 2,
    }
    if settings.sasl_mechanism:
        options |= {"sasl.mechanism": settings.sasl_mechanism, "sasl.username": settings.sasl_username}
        options["sasl.password"] = settings.password.get_secret_value() if settings.password else None
    if settings.ssl_cafile:
        options["ssl.ca.location"] = settings.ssl_cafile
    return options


def _producer_options(settings: KafkaSettings) -> dict[str, Any]:
    return _options(settings) | {
        "compression.type": "lz4",
        "linger.ms": 20,
        "batch.size": 1 << 20,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 128 << 10,
        "delivery.timeout.ms": settings.timeout_s * 1000,
    }


class Writer:
    """Writes records in order, each to the partition that a Java producer would choose by its key."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._timeout = settings.timeout_s
        self._failed: list[str] = []
        self._producer = Producer(
            _producer_options(settings) | {"enable.idempotence": True, "partitioner": "murmur2_random"}
        )

    def write(self, topic: str, key: bytes | None, value: bytes | None, timestamp: int) -> None:
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, on_delivery=self._delivered, timestamp=timestamp)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def flush(self) -> None:
        """Waits until the broker has everything; raises LodeError where it refused a record."""
        left = self._producer.flush(self._timeout)
        if left or self._failed:
            raise ServerUnavailable(f"{left} records not delivered in {self._timeout} s; {'; '.join(self._failed[:3])}")

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error:
            self._failed.append(str(error))


def _group_metadata(settings: KafkaSettings, group: str) -> Any:
    """The group as a transaction names it, of a consumer that is closed before it has met a broker: one whose broker
    is gone may wait for its coordinator for ever when it is closed (confluentinc/librdkafka#3740)."""
    consumer = Consumer(_options(settings) | {"group.id": group})
    try:
        return consumer.consumer_group_metadata()
    finally:
        consumer.close()


class TransactionalWriter:
    """Writes a replay's records of one partition, each transaction with the next source offset in it.

    The offset is committed for the replay's group on the target partition, inside the transaction that holds the
    records before it: a resumed replay goes on behind the last record that readers can see. A second writer of the
    same replay and partition fences the first.
    """

    def __init__(self, settings: KafkaSettings, group: str, topic: str, partition: int) -> None:
        self._settings = settings
        self._topic, self._partition = topic, partition
        most = min(settings.timeout_s * 1000, 60_000)
        # Offsets are sent for as long as a request may take, whatever time-out the call is given: 60 s by default.
        timeouts = {"transaction.timeout.ms": 60_000, "delivery.timeout.ms": most, "socket.timeout.ms": most}
        options = _producer_options(settings) | timeouts | {"transactional.id": f"{group}.{partition}"}
        self._producer = Producer(options)
        self._group = _group_metadata(settings, group)
        self._call(self._producer.init_transactions, settings.timeout_s)

    def write(self, records: Iterable[tuple[bytes | None, bytes | None, Headers, int]], next_offset: int) -> None:
        """One transaction: the records (key, value, headers, timestamp; 0 is now) and the source offset behind them."""
        self._producer.begin_transaction()
        try:
            for key, value, headers, timestamp in records:
                self._produce(key, value, headers, timestamp)
            at = TopicPartition(self._topic, self._partition, next_offset)
            self._call(self._producer.send_offsets_to_transaction, [at], self._group, self._settings.timeout_s)
            self._call(self._producer.commit_transaction, self._settings.timeout_s)
        except LostRace:
            raise
        except LodeError:
            self._abort()
            raise

    def _produce(self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic, value=value, key=key, partition=self._partition, timestamp=timestamp, headers=headers
                )
                return
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                raise self._explained(error) from None

    def _abort(self) -> None:
        with suppress(KafkaException):  # where that fails the broker aborts it after transaction.timeout.ms
            self._producer.abort_transaction(self._settings.timeout_s)

    def _call(self, method: Any, *arguments: Any) -> None:
        try:
            method(*arguments)
        except KafkaException as error:
            raise self._explained(error) from None

    def _explained(self, error: KafkaException) -> LodeError:
        cause: KafkaError = error.args[0]
        where = f"{self._topic}-{self._partition} at {self._settings.bootstrap_servers}"
        if cause.code() in _FENCED:
            return LostRace(f"{where}: another run of the same replay took over")
        return ServerUnavailable(f"{where}: {cause.str()}")
