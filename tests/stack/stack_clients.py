"""Writing to and reading from the servers, as their users would."""

import boto3
import requests
from botocore.config import Config
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from mypy_boto3_s3 import S3Client

from pipeline_lib.stack.s3 import credentials
from pipeline_lib.stack.stack import Stack


def s3_client(stack: Stack, secret_key: str | None = None) -> S3Client:
    access_key, right_key = credentials(stack.home)
    return boto3.client(
        "s3",
        endpoint_url=stack.endpoints()["s3.endpoint"],
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key or right_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def produce(stack: Stack, topic: str, values: list[bytes]) -> None:
    servers = {"bootstrap.servers": stack.endpoints()["kafka.bootstrap"]}
    admin = AdminClient(servers)  # kept: with its client gone, the result never comes
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    producer = Producer(servers | {"acks": "all"})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(20) == 0


def consume(stack: Stack, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {
            "bootstrap.servers": stack.endpoints()["kafka.bootstrap"],
            "group.id": "test",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    try:
        return [message.value() for message in consumer.consume(count, timeout=30)]
    finally:
        consumer.close()


def write_file(stack: Stack, path: str, content: bytes) -> None:
    url = f"{stack.endpoints()['hdfs.web']}/webhdfs/v1{path}"
    answer = requests.put(url, params={"op": "CREATE", "overwrite": "true"}, data=content, timeout=20)
    assert answer.status_code == 201, answer.text


def read_file(stack: Stack, path: str) -> bytes:
    answer = requests.get(f"{stack.endpoints()['hdfs.web']}/webhdfs/v1{path}", params={"op": "OPEN"}, timeout=20)
    answer.raise_for_status()
    return answer.content
