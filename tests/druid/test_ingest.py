"""Loads into a real Druid; the oracle is what queries find before and after."""

import math
import time
from datetime import timedelta

import pyarrow as pa
import pytest
from druid_cases import FIRST, Case, events, outcomes, span

from pipeline_lib.druid.chunks import chunks_of
from pipeline_lib.druid.query import ask
from pipeline_lib.druid.rollback import execute_rollback, plan_rollback
from pipeline_lib.druid.run import EmptySource
from pipeline_lib.druid.spec import ingestion_task, retention_rules
from pipeline_lib.druid.status import apply_rules, chunk_states, compact_chunks
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.delta_files import live_files


def test_a_day_is_loaded_proved_and_replaced_and_taken_back(case: Case) -> None:
    case.write(0, 100)
    assert outcomes(case.load()) == ["loaded"]
    assert case.rows() == 100
    first = case.revenue()
    assert outcomes(case.load()) == ["already"]

    case.write(0, 50, revenue=10)
    assert outcomes(case.load()) == ["loaded"]
    assert case.rows() == 150
    assert case.revenue() != first

    plan = plan_rollback(case.config, case.source, span(0, 1))
    execute_rollback(case.config, case.source, plan)
    assert (case.rows(), case.revenue()) == (100, first)
    assert case.load(changed=True) == []  # what was rolled back does not come again by itself
    case.write(0, 5)
    assert outcomes(case.load(changed=True)) == ["loaded"]
    assert case.rows() == 155


def test_questions_are_answered_and_uniques_are_exact_below_the_sketchs_size(case: Case) -> None:
    case.write(0, 100)
    case.load()

    def asked(by: str | None, *where: str) -> list[dict[str, object]]:
        return ask(case.druid, case.source, "visitors", by, list(where), "all", 10, span(0, 1))

    ((row,), table) = (asked(None), events(FIRST, 100).to_pylist())
    visitors = len({each["visitor"] for each in table})
    assert (row["count"], row["visitors"], row["visitors_low"], row["visitors_high"]) == (100, *[visitors] * 3)
    found = {each["experiment"]: each["visitors"] for each in asked("experiment", "holdback=true")}
    chosen = [each for each in table if each["holdback"]]
    assert found == {
        name: len({each["visitor"] for each in chosen if each["experiment"] == name})
        for name in {each["experiment"] for each in chosen}
    }
    with pytest.raises(ConfigError, match="no such dimension"):
        asked("colour")


def test_of_thirty_days_only_the_one_with_a_late_event_is_loaded_again(case: Case) -> None:
    month = pa.concat_tables(events(FIRST + timedelta(days=day), 10 + day) for day in range(30))
    case.write(0, table=month)  # a file a day
    assert outcomes(case.load(0, 30)) == ["loaded"] * 30
    case.write(2, 1)
    assert outcomes(case.load(0, 30)) == ["already", "already", "loaded", *["already"] * 27]
    assert case.load(0, 30, changed=True) == []
    case.write(17, 1)
    assert [chunk.chunk for chunk in case.load(0, 30, changed=True)] == ["2026-11-18T00"]
    assert case.rows(0, 30) == sum(range(10, 40)) + 2
    case.replace(1, 0)
    case.write(3, 1)
    with pytest.raises(EmptySource, match="2026-11-02T00: Druid has rows"):  # as after a loss of HDFS
        case.load(0, 30, changed=True)
    assert [case.rows(day, day + 1) for day in range(4)] == [10, 11, 13, 14]
    assert outcomes(case.load(0, 4, allow_empty=True)) == ["already", "emptied", "already", "already"]
    assert [case.rows(day, day + 1) for day in range(4)] == [10, 0, 13, 14]


def test_a_sketch_above_its_size_is_within_its_stated_error(case: Case) -> None:
    case.write(0, table=events(FIRST, 30_000, visitors=20_000))
    case.load()
    (row,) = ask(case.druid, case.source, "visitors", None, [], "all", 10, span(0, 1))
    assert row["visitors"] != 20_000  # an estimate: the sketch keeps 4,096 hashes
    assert row["visitors_low"] < 20_000 < row["visitors_high"]
    assert row["visitors"] == pytest.approx(20_000, rel=2 / math.sqrt(4096))


def test_many_small_segments_become_one_with_the_same_rows(case: Case) -> None:
    case.write(0, 1440)
    chunk = chunks_of(case.source.declared, live_files(case.source.table)[1], None)[0]
    uris = [file.uri for file in chunk.files]
    task = ingestion_task(f"small-{case.name}", case.name, case.source.declared, chunk, "parquet", uris)
    task["spec"]["tuningConfig"]["partitionsSpec"] = {"type": "dynamic", "maxRowsPerSegment": 20}
    case.druid.submit(task)
    deadline = time.monotonic() + 120
    while case.rows() < 1440 and time.monotonic() < deadline:
        time.sleep(0.5)
    (before,) = chunk_states(case.config, case.source)
    assert (before.state, before.segments > 1, before.compact) == ("foreign", True, True)
    revenue = case.revenue()

    assert compact_chunks(case.config, case.source, span(0, 1)) == [chunk.name]
    (after,) = chunk_states(case.config, case.source)
    assert (after.segments, after.compact, case.rows(), case.revenue()) == (1, False, 1440, revenue)
    assert compact_chunks(case.config, case.source, span(0, 1)) == []


def test_retention_rules_are_changed_only_as_they_were_looked_at(case: Case) -> None:
    declared = retention_rules(case.source.declared.model_copy(update={"keep_days": 30}))
    with pytest.raises(ConfigError, match="look at it again"):
        apply_rules(case.config, case.source, declared, "digest-now", "digest-before")
    assert case.druid.rules(case.name) == []
    apply_rules(case.config, case.source, declared, "digest-now", "digest-now")
    assert case.druid.rules(case.name) == declared


def test_an_empty_span_is_refused_unless_it_is_meant(case: Case) -> None:
    case.write(0, 10)
    case.write(1, 10)
    case.load(0, 2)
    case.replace(0, 0)
    with pytest.raises(EmptySource, match="--allow-empty"):
        case.load()
    assert case.rows() == 10
    assert outcomes(case.load(allow_empty=True)) == ["emptied"]
    assert (case.rows(), case.rows(1, 2)) == (0, 10)


def test_days_that_have_expired_stay_in_druid(case: Case) -> None:
    for day in range(3):
        case.write(day, 10 + day)
    case.load(0, 3)
    case.expire(0, before=2)
    case.write(1, 1)  # late, to a day that is over: the day would be replaced by what is left of it
    case.write(2, 1)
    assert [chunk.chunk for chunk in case.load(0, 3, changed=True)] == ["2026-11-03T00"]
    assert [case.rows(day, day + 1) for day in range(3)] == [10, 11, 13]
    assert [chunk.state for chunk in chunk_states(case.config, case.source)] == ["expired", "expired", "loaded"]
    with pytest.raises(ConfigError, match=r"2026-11-01T00 is a day that `lode expire` has removed.*before 2026-11-03"):
        case.load(0, 3)
    assert outcomes(case.load(0, 1, allow_empty=True)) == ["emptied"]
    assert case.rows() == 0


def test_a_span_that_cuts_a_day_is_refused(case: Case) -> None:
    case.write(0)
    from pipeline_lib.druid.run import ingest
    from pipeline_lib.timespan import TimeSpan

    with pytest.raises(ConfigError, match="inside a day"):
        ingest(case.config, case.source, TimeSpan.parse("2026-11-01", "2026-11-01T12:00"), False, False)
