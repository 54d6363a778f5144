"""A schema migration from one column a field to one packed column, with a live serve and a reader beside it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from deployments import Deployment
from job_records import HOUR, START, archive, event, here, produce

from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError, VerificationFailed
from pipeline_lib.hbase import migrate
from pipeline_lib.hbase.clusters import mapping_of, open_cluster
from pipeline_lib.hbase.mapping import decode_row, row_key
from pipeline_lib.hbase.serve import serve_topic
from pipeline_lib.hbase.state import State
from pipeline_lib.io.hbase import HBase
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.landing.rows import landed_schema
from pipeline_lib.replay.hbase import HBaseSink
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import Topic, load_topic

JSON = 'codec = "json"\nid_field = "id"\n[event_time]\nfield = "at"\n[fields]\nid = "string"\nat = "bigint"\n'


@pytest.fixture
def topic(served: Deployment, kafka: Kafka) -> Topic:
    name = served.declare("migrate", "")
    tables = f'[hbase.versions.v1]\ntable = "{name}"\n[hbase.versions.v2]\ntable = "{name}-packed"\nlayout = "packed"\n'
    text = f'name = "{name}"\n{JSON}[hbase]\nkey = ["id"]\nsalt_buckets = 2\n{tables}'
    (served.config.topics / f"{name}.toml").write_text(text)
    kafka.create_topic(name, 2)
    return load_topic(served.config.topics, name)


class Reader:
    """Reads all events that were served so far, again and again, in the version that readers take."""

    def __init__(self, config: Config, topic: Topic) -> None:
        self._config, self._topic = config, topic
        self.known: list[str] = []
        self.missing: list[str] = []
        self.versions: list[str] = []
        self._stop = threading.Event()

    def run(self) -> None:
        mapping, schema = mapping_of(self._topic), landed_schema(self._topic.make_codec())
        with open_cluster(self._config, "prod") as prod:
            while not self._stop.is_set():
                names = list(self.known)
                version = State(prod).read(self._topic.name, mapping)
                keys = {row_key(mapping, START, [name]): name for name in names}
                found = prod.get(mapping.version(version).table, list(keys))
                for key, cells in found.items():
                    values = {column: value for column, (value, _) in cells.items()}
                    row = decode_row(values, schema, mapping, mapping.version(version))
                    assert row == {"id": keys[key], "at": START}
                self.missing += [name for key, name in keys.items() if key not in found]
                self.versions.append(version)

    @contextmanager
    def beside(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(60)


def test_no_reader_misses_a_row_while_a_live_topic_is_migrated(served: Deployment, topic: Topic, prod: HBase) -> None:
    config, reader = served.config, Reader(served.config, topic)

    def live(*names: str) -> None:
        produce(config, topic.name, len(reader.known) % 2, [(event(name, START), START) for name in names])
        serve_topic(config, topic, Limits(), here)
        reader.known += names

    live("a", "b", "c")
    with reader.beside():
        with pytest.raises(ConfigError, match="start the migration first"):
            migrate.check(config, topic, "v2", here)
        migrate.start(config, topic, "v2")
        migrate.start(config, topic, "v2")  # each step can be repeated
        live("d", "e")
        with pytest.raises(VerificationFailed, match="6 of 10"):
            migrate.switch(config, topic, "v2", here)
        assert State(prod).read(topic.name, mapping_of(topic)) == "v1"
        archive(config, topic.name)
        day = datetime.fromtimestamp(START / 1000, UTC)
        until = datetime.fromtimestamp((START + 24 * HOUR) / 1000, UTC)
        sink = HBaseSink(config, here, version="v2")
        request = ReplayRequest(topic.name, TimeSpan(day, until), by="event_time")
        entry = execute(config, request, sink, plan(config, request, sink).id, skip_corrupt=False)
        assert (entry["status"], entry["missing"]) == ("done", 0)
        live("f")
        assert migrate.check(config, topic, "v2", here) == 12
        assert migrate.switch(config, topic, "v2", here) == 12
        live("g")
        seen = len(reader.versions)
        wait_until(lambda: len(reader.versions) > seen + 1)
        with pytest.raises(ConfigError, match="no longer be undone"):
            migrate.undo(config, topic, "v2")
        migrate.finish(config, topic, "v2")
        live("h")
    assert reader.missing == []
    assert set(reader.versions) == {"v1", "v2"}
    assert state_of(config, topic) == {"prod": (["v2"], "v2"), "loki": (["v2"], "v2")}
    assert len(list(prod.scan(mapping_of(topic).version("v1").table))) == 7, "h is served to the new table only"


def test_before_the_switch_a_migration_can_be_undone_and_started_again(served: Deployment, topic: Topic) -> None:
    config = served.config
    produce(config, topic.name, 0, [(event("a", START), START)])
    serve_topic(config, topic, Limits(), here)
    migrate.start(config, topic, "v2")
    with pytest.raises(ConfigError, match="switch to v2 first"):
        migrate.finish(config, topic, "v2")
    assert migrate.state(config, topic, "v2")["next"].startswith(f"lode replay hbase {topic.name} --version v2")
    migrate.undo(config, topic, "v2")
    assert state_of(config, topic) == {"prod": (["v1"], "v1"), "loki": (["v1"], "v1")}
    produce(config, topic.name, 0, [(event("b", START), START)])
    serve_topic(config, topic, Limits(), here)
    migrate.start(config, topic, "v2")
    assert state_of(config, topic)["prod"] == (["v1", "v2"], "v1")
    with pytest.raises(VerificationFailed, match=r"4 of 4 rows.*only in the old one"):
        migrate.check(config, topic, "v2", here)
    with pytest.raises(ConfigError, match="'v3' is not declared"):
        migrate.start(config, topic, "v3")


def state_of(config: Config, topic: Topic) -> dict[str, Any]:
    found = {}
    for name in ("prod", "loki"):
        with open_cluster(config, name) as cluster:
            state = State(cluster)
            found[name] = (state.served(topic.name, mapping_of(topic)), state.read(topic.name, mapping_of(topic)))
    return found


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
