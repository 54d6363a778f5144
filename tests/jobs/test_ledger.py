"""`lode ledger` on real stores: what was produced is what it counts, and what was taken away disagrees."""

import json
from datetime import UTC, datetime

import pytest
from deployments import Deployment
from job_records import HOUR, JSON_TOPIC, START, archive, event, here, produce
from rich.console import Console

from pipeline_lib.archive.commits import ArchiveCommit, archive_path
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.ledger import table as ledger_table
from pipeline_lib.ledger.reconcile import Ledger, Row
from pipeline_lib.ledger.run import CountUnit, count_unit, read_replays

Counts = dict[tuple[int, int], tuple[object, ...]]


def counts(result: dict[str, list[dict[str, object]]], *names: str) -> Counts:
    return {
        (int(str(row["hour"])) - START // HOUR, int(str(row["partition"]))): tuple(row[name] for name in names)
        for row in result["rows"]
    }


def ledger(deployment: Deployment, topic: str, *options: str, check: int = 0) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(
        deployment.lode("ledger", topic, "--json", *options, check=check).stdout
    )
    return found


def test_ledger_of_a_topic_through_its_life(deployment: Deployment, kafka: Kafka) -> None:
    config, topic = (
        deployment.config,
        deployment.declare("ledger", JSON_TOPIC + "\n[quality]\nmax_quarantined_share = 1"),
    )
    kafka.create_topic(topic, 2)
    late = event("late", START - 2 * HOUR)
    first = [(event(str(i), START), START) for i in range(10)]
    produce(config, topic, 0, [*first, (late, START), (b"no JSON", START), (event("x", START), START + HOUR)])
    produce(config, topic, 1, first[:4])
    archive(config, topic)
    deployment.lode("land", topic)
    produce(config, topic, 1, first[:3])
    kafka.delete_records(topic, {0: 5})
    S3(config.s3).put(f"replays/{topic}.json", json.dumps({"topic": topic, "status": "done", "records": 7}).encode())

    result = ledger(deployment, topic)
    names = ("kafka", "landed", "quarantined", "archived", "duplicates", "late", "agrees")
    assert counts(result, *names) == {
        (0, 0): (7, 11, 1, 12, 0, 1, "yes"),
        (1, 0): (1, 1, 0, 1, 0, 0, "yes"),
        (0, 1): (7, 4, 0, 4, 0, 0, "behind"),
    }
    assert result["replays"] == [{"id": topic, "status": "done", "records": 7}]

    path = archive_path(kafka.cluster_id(), topic)
    store = S3(config.s3)
    (lost,) = (e.key for e in store.list(f"{path}/") if "/partition=1/" in e.key)
    store.delete(lost)
    kafka.delete_topic(topic)
    since = datetime.fromtimestamp(START / 1000, UTC).isoformat()
    until = datetime.fromtimestamp((START + HOUR) / 1000, UTC).isoformat()
    result = ledger(deployment, topic, "--since", since, "--until", until, check=12)
    assert counts(result, *names) == {
        (0, 0): (None, 11, 1, 12, 0, 1, "yes"),
        (0, 1): (None, 4, 0, 0, 0, 0, "no"),
    }
    assert result["notes"] == ["the topic is not in Kafka"]


def test_segments_with_the_same_offsets_show_duplicates(deployment: Deployment, kafka: Kafka) -> None:
    config, topic = deployment.config, deployment.declare("ledger-twice", JSON_TOPIC)
    kafka.create_topic(topic, 1)
    produce(config, topic, 0, [(event(str(i), START), START) for i in range(5)])
    archive(config, topic)
    path = archive_path(kafka.cluster_id(), topic)
    (segment,) = ArchiveCommit.from_json(ArchiveTable(config.s3, path).commits()[0]).segments
    unit = CountUnit(
        config.kafka,
        config.s3,
        1 << 20,
        (segment.topic_id, 0),
        (),
        (0, 1 << 62),
        path=path,
        segments=(segment, segment),
    )
    ((cell,),) = here(count_unit, [unit])
    assert (cell.tally.records, cell.duplicates) == (5, 5)


def test_replay_entries_may_lack_anything(deployment: Deployment) -> None:
    store = S3(deployment.config.s3)
    topic = deployment.declare("ledger-replays")
    store.put(
        f"replays/{topic}-a.json", json.dumps({"plan": {"topic": topic, "span": "s"}, "status": "started"}).encode()
    )
    store.put(f"replays/{topic}-b.json", json.dumps({"topic": "another"}).encode())
    assert read_replays(store, topic) == [{"id": f"{topic}-a", "status": "started", "span": "s"}]


def test_table_fits_120_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ledger_table, "Console", lambda: Console(width=120))
    big = Row("0b9057bb-id", 12, START // HOUR, 12_345_678, 12_345_678, 1_234, 12_345_678, 0, 12_345_678, "behind")
    other = Row("1c", 12, START // HOUR, agrees="yes")
    ledger_table.print_ledger(Ledger("events", [big, other], notes=["the topic is not landed"]))
    text = capsys.readouterr().out
    assert "…" not in text
    assert "behind" in text
    assert "note: the topic is not landed" in text
    assert max(map(len, text.splitlines())) <= 120
