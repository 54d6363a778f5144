"""Records of a known kind in a topic of the test's own, and jobs without Spark."""

import json
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import Producer

from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits, RunReport
from pipeline_lib.config import Config
from pipeline_lib.topics import load_topic

T = TypeVar("T")
R = TypeVar("R")

JSON_TOPIC = 'codec = "json"\nid_field = "id"\n[event_time]\nfield = "at"\n[fields]\nid = "string"\nat = "bigint"'
HOUR = 3_600_000
START = (int(time.time()) // 86_400 - 1) * 86_400_000  # yesterday: within every topic's retention


def here(work: Callable[[T], R], units: Sequence[T]) -> list[R]:
    """Runs units one after another in this process."""
    return [work(unit) for unit in units]


def event(name: str, at_ms: int) -> bytes:
    return json.dumps({"id": name, "at": at_ms}).encode()


def produce(config: Config, topic: str, partition: int, values: Sequence[tuple[bytes, int]]) -> None:
    """Writes (value, timestamp) records, with a key and a header each."""
    producer = Producer({"bootstrap.servers": config.kafka.bootstrap_servers})
    for number, (value, timestamp) in enumerate(values):
        key, headers = str(number), [("h", str(number))]
        producer.produce(topic, value, key, partition=partition, timestamp=timestamp, headers=headers)
    assert producer.flush(30) == 0


def archive(config: Config, topic: str) -> RunReport:
    return archive_topic(config, load_topic(config.topics, topic), Limits(), here)
