"""All servers together: they start, serve and end. The last file of its folder, because it ends the shared stack."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import happybase
import psutil
import requests

from pipeline_lib.stack.catalog import SERVERS
from pipeline_lib.stack.stack import Stack


def pids(stack: Stack) -> list[int]:
    return [server.pid for server in stack.status() if server.pid is not None]


def test_everything_is_up_within_three_minutes(stack: Stack) -> None:
    began = time.monotonic()
    endpoints = stack.up()
    assert time.monotonic() - began < 180
    default = {name for name, server in SERVERS.items() if server.by_default}
    assert {server.name for server in stack.status() if server.state == "up"} == default
    assert sum(server.memory_mb or 0 for server in stack.status()) < 6 * 1024

    def put_row(cluster: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        host, port = endpoints[f"hbase.{cluster}.thrift"].split(":")
        connection = happybase.Connection(host, int(port))
        connection.create_table("t", {"d": {}})
        connection.table("t").put(b"row", {b"d:c": cluster.encode()})
        rows = list(connection.table("t").scan())
        connection.close()
        return rows

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(put_row, ("prod", "loki")))
    assert rows == [[(b"row", {b"d:c": b"prod"})], [(b"row", {b"d:c": b"loki"})]]
    assert ingested(endpoints) == [{"k": "a", "v": 4}, {"k": "b", "v": 2}]

    ended = pids(stack)
    assert len(ended) == len(default)
    stack.down()
    assert not [pid for pid in ended if psutil.pid_exists(pid)]


def ingested(endpoints: dict[str, str]) -> list[dict[str, object]]:
    """What Druid answers after it has loaded three rows."""
    rows = [{"ts": "2026-11-01", "k": key, "v": value} for key, value in (("a", 1), ("b", 2), ("a", 3))]
    data = {
        "dataSource": "d",
        "timestampSpec": {"column": "ts", "format": "iso"},
        "dimensionsSpec": {"dimensions": ["k"]},
        "metricsSpec": [{"type": "longSum", "name": "v", "fieldName": "v"}],
        "granularitySpec": {"segmentGranularity": "day", "queryGranularity": "day", "rollup": True},
    }
    source = {"type": "inline", "data": "\n".join(json.dumps(row) for row in rows)}
    read = {"type": "index_parallel", "inputSource": source, "inputFormat": {"type": "json"}}
    task = {"type": "index_parallel", "spec": {"dataSchema": data, "ioConfig": read}}
    requests.post(f"{endpoints['druid.coordinator']}/druid/indexer/v1/task", json=task, timeout=20).raise_for_status()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        query = {"query": "SELECT k, SUM(v) AS v FROM d GROUP BY k ORDER BY k"}
        answer = requests.post(f"{endpoints['druid.broker']}/druid/v2/sql", json=query, timeout=20)
        if answer.ok and answer.json():
            return list(answer.json())
        time.sleep(0.5)
    raise AssertionError(answer.text)
