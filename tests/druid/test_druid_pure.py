"""Declarations, chunks, specs and proofs, without a server."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline_lib.druid.chunks import SourceFile, chunks_of, task_id
from pipeline_lib.druid.declaration import Datasource
from pipeline_lib.druid.ledger import Entry, Load
from pipeline_lib.druid.proof import own_version, report_problems
from pipeline_lib.druid.spec import ingestion_task, way_for
from pipeline_lib.errors import ConfigError
from pipeline_lib.timespan import TimeSpan

DECLARED = Datasource(time="at", dimensions={"k": "string"})
DAY = TimeSpan.parse("2026-11-01", "2026-11-02")


def file(name: str = "a", rows: int | None = 3, day: int = 1) -> SourceFile:
    return SourceFile(f"hdfs://n:1/t/{name}", rows, 10, date(2026, 11, day))


def report(**counts: int) -> dict[str, Any]:
    return {"ingestionStatsAndErrors": {"payload": {"rowStats": {"buildSegments": counts}}}}


@pytest.mark.parametrize(
    ("counts", "problems"),
    [
        ({"processed": 3}, []),
        ({"processed": 2}, ["processed 2 rows of 3"]),
        ({"processed": 3, "thrownAway": 1}, ["1 rows were thrownAway"]),
        ({"processed": 3, "unparseable": 1}, ["1 rows were unparseable"]),
        ({"processed": 3, "processedWithError": 1}, ["1 rows were processedWithError"]),
    ],
)
def test_a_report_proves_every_row(counts: dict[str, int], problems: list[str]) -> None:
    found = report_problems(report(**counts), 3)
    assert len(found) == len(problems)
    assert all(wanted in text for wanted, text in zip(problems, found, strict=True))


def test_no_report_proves_nothing() -> None:
    assert report_problems(None, 0)


@pytest.mark.parametrize(
    ("used", "unused", "own"),
    [
        (["1", "3"], ["0"], "3"),  # the only one since the task was created
        (["3", "4"], [], None),  # another load published as well
        (["4"], ["3"], None),  # and hid the first
        (["1"], ["3"], None),  # it was taken back: it does not stand
        (["1"], [], None),  # nothing was published
    ],
)
def test_a_version_is_a_tasks_own_only_where_that_is_certain(
    used: list[str], unused: list[str], own: str | None
) -> None:
    assert own_version("2", iter(used), iter(unused)) == own


def test_the_digest_is_of_the_files_and_of_the_declaration() -> None:
    chunk, other = chunks_of(DECLARED, [file()], DAY)[0], chunks_of(DECLARED, [file("b")], DAY)[0]
    wider = Datasource(time="at", dimensions={"k": "string", "l": "long"})
    assert len({chunk.digest(DECLARED), other.digest(DECLARED), chunk.digest(wider)}) == 3
    assert chunk.digest(DECLARED) == chunks_of(DECLARED, [file()], None)[0].digest(DECLARED)
    assert task_id("d", chunk, "x", 0) == "lode_d_20261101T00_x_0"


def test_a_file_without_a_row_count_cannot_be_proved() -> None:
    with pytest.raises(ConfigError, match="cannot be proved"):
        chunks_of(DECLARED, [file(rows=None)], DAY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dimensions": ["count"]},
        {"dimensions": ["a b"]},
        {"dimensions": ["k"], "datasource": "../x"},
        {"dimensions": ["k"], "segment_granularity": "hour"},  # without a time column
        {"dimensions": ["k"], "metrics": {"u": {"kind": "theta", "size": 1000}}},
        {"dimensions": ["k"], "spec": {}},  # nobody hands in a spec
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Datasource.model_validate(wrong)


def test_a_spec_stops_at_the_first_bad_row_and_empties_only_without_files() -> None:
    chunk = chunks_of(DECLARED, [file()], DAY)[0]
    full = ingestion_task("t", "d", DECLARED, chunk, "parquet", ["hdfs://n:1/t/a"])["spec"]
    empty = ingestion_task("t", "d", DECLARED, chunk, "parquet", [])["spec"]
    assert full["tuningConfig"]["maxParseExceptions"] == 0
    assert [spec["ioConfig"]["dropExisting"] for spec in (full, empty)] == [False, True]
    assert full["dataSchema"]["granularitySpec"]["intervals"] == ["2026-11-01T00:00:00.000Z/2026-11-02T00:00:00.000Z"]
    assert json.loads(json.dumps(full)) == full


def test_parquet_needs_both_extensions() -> None:
    assert way_for({"druid-parquet-extensions", "druid-hdfs-storage"}) == "parquet"
    assert way_for({"druid-parquet-extensions"}) == "json"


def test_the_ledger_knows_the_way_back_and_what_was_rejected() -> None:
    first, second = Load("2", "a", 1, "t"), Load("3", "b", 2, "u")
    entry = Entry().loaded(first, before="1").loaded(second, before="2")
    assert [load.version for load in entry.loads] == ["3", "2", "1"]
    back = entry.rolled_back("2")
    assert (back.current, back.rejected) == (first, "b")


def test_what_the_repository_declares_can_be_used() -> None:
    from pipeline_lib.analysis.declaration import load_analysis
    from pipeline_lib.topics import load_topic

    assert load_topic(Path("conf/topics"), "events").druid
    assert set(load_analysis(Path("conf/analysis/experiments.toml")).druid) == {"traffic", "results"}
