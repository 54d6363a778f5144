"""The generated traffic against its truth, read back through the codec that lands it."""

import hashlib
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from pipeline_lib.codecs import CodecSettings, events_to_arrow, make_codec
from pipeline_lib.errors import ConfigError
from pipeline_lib.generate import Cell, Record, TrafficSettings, Truth, generate
from pipeline_lib.generate.effects import BOTS, EFFECTS
from pipeline_lib.generate.faults import FAULTS
from pipeline_lib.generate.sdk import Attributes, Project
from pipeline_lib.generate.traffic import LATE

PINNED = "f8e875bb043c4ce12aeafba3bdeb0e8bd93697586bdf05ce7a87f516d994b6bd"
CODEC = make_codec(CodecSettings("optimizely-event-batch"))
SETTINGS = TrafficSettings(
    visitors_per_day=4000, days=3, seed=7, duplicate_share=0.05, late_share=0.04, malformed_share=0.01, bot_share=0.03
)


class Traffic:
    """A traffic with its truth, its decoded events and the records that the codec refused."""

    def __init__(self, settings: TrafficSettings) -> None:
        self.truth = Truth(settings)
        began = time.perf_counter()
        self.records = list(generate(settings, self.truth))
        self.events_per_second = self.truth.events / (time.perf_counter() - began)
        values = pa.array([record.value for record in self.records], pa.binary())
        times = np.array([record.timestamp_ms for record in self.records])
        batch, self.refused = events_to_arrow(CODEC, values, times)
        at = batch.schema.get_field_index("event_time")
        plain = batch.set_column(at, "event_time", batch["event_time"].cast(pa.int64()))
        at = batch.schema.get_field_index("received_at")
        self.events = plain.set_column(at, "received_at", batch["received_at"].cast(pa.int64())).to_pylist()
        self.unique = list({event["uuid"]: event for event in reversed(self.events)}.values())


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic(SETTINGS)


def digest(settings: TrafficSettings) -> str:
    sha = hashlib.sha256()
    for record in generate(settings):
        sha.update(b"%b %b %d\n" % record)
    return sha.hexdigest()


def test_same_settings_give_the_same_bytes_and_another_seed_others() -> None:
    settings = TrafficSettings(visitors_per_day=300, days=2)
    again = TrafficSettings(visitors_per_day=300, days=2)
    assert digest(settings) == digest(again)
    assert digest(settings) != digest(TrafficSettings(visitors_per_day=300, days=2, seed=2))


def test_bytes_stay_the_same_over_versions_of_lode() -> None:
    assert digest(TrafficSettings(visitors_per_day=100, days=1)) == PINNED


def test_truth_counts_what_the_codec_decodes(traffic: Traffic) -> None:
    truth = traffic.truth
    kinds = Counter(event["event_type"] for event in traffic.events)
    unique = Counter(event["event_type"] for event in traffic.unique)
    assert truth.records == len(traffic.records)
    assert (truth.events, truth.decisions, truth.conversions) == (kinds.total(), kinds["decision"], kinds["conversion"])
    assert (truth.unique_events, truth.unique_decisions, truth.unique_conversions) == (
        unique.total(),
        unique["decision"],
        unique["conversion"],
    )
    assert truth.duplicate_events == len(traffic.events) - len(traffic.unique)
    late = [event for event in traffic.events if event["received_at"] - event["event_time"] >= LATE]
    assert truth.late_events == len(late)
    assert truth.late_records == len({event["record"] for event in late})
    assert max(event["received_at"] - event["event_time"] for event in late) <= 2 * 86_400_000


def test_every_malformed_record_is_refused_for_the_reason_told(traffic: Traffic) -> None:
    assert Counter(reason.split(":")[0] for _, reason in traffic.refused) == traffic.truth.refusals
    assert traffic.truth.malformed.total() == len(traffic.refused)
    assert set(traffic.truth.malformed) == {fault.kind for fault in FAULTS}


def cells_of(events: list[dict[str, Any]]) -> dict[tuple[date, str, str], dict[str, Any]]:
    """The cells as an analysis counts them: people, first exposure, events from then on."""
    by_visitor: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["user_agent"] not in BOTS:
            by_visitor[event["visitor_id"]].append(event)
    cells: dict[tuple[date, str, str], dict[str, Any]] = defaultdict(lambda: vars(Cell()))
    for mine in by_visitor.values():
        for exposure in (event for event in mine if event["event_type"] == "decision"):
            later = [e for e in mine if e["event_type"] == "conversion" and e["event_time"] >= exposure["event_time"]]
            day = datetime.fromtimestamp(exposure["event_time"] / 1000, UTC).date()
            cell = cells[day, exposure["experiment_id"], exposure["variation_id"]]
            revenue = sum(event["revenue"] or 0 for event in later)
            cell["visitors"] += 1
            cell["purchasers"] += any(event["event_name"] == "purchase" for event in later)
            cell["conversions"] = cell["conversions"] + Counter(event["event_name"] for event in later)
            cell["revenue"] += revenue
            cell["revenue_squares"] += revenue * revenue
    return cells


def test_cells_are_what_an_analysis_of_the_events_finds(traffic: Traffic) -> None:
    expected = {
        (day, choice.experiment_id, choice.variation_id): vars(cell)
        for (day, choice), cell in traffic.truth.cells.items()
    }
    assert cells_of(traffic.unique) == expected
    assert len(expected) == SETTINGS.days * len(EFFECTS)


def test_records_come_in_the_order_received_under_their_visitor(traffic: Traffic) -> None:
    times = [record.timestamp_ms for record in traffic.records]
    assert times == sorted(times)
    for event in traffic.events:
        record: Record = traffic.records[event["record"]]
        assert (record.key, record.timestamp_ms) == (event["visitor_id"].encode(), event["received_at"])


def test_events_lie_in_the_days_asked_for(traffic: Traffic) -> None:
    days = {datetime.fromtimestamp(event["event_time"] / 1000, UTC).date() for event in traffic.events}
    assert days == {date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)}


def test_shares_are_near_what_was_asked(traffic: Traffic) -> None:
    truth = traffic.truth
    sound = truth.records - truth.malformed.total()
    first = sound - truth.duplicate_records
    assert truth.duplicate_records / first == pytest.approx(0.05, rel=0.15)
    assert truth.late_records / sound == pytest.approx(0.04, rel=0.15)
    assert truth.malformed.total() / first == pytest.approx(0.01, rel=0.3)
    assert truth.bots / truth.visitors == pytest.approx(0.03, rel=0.25)
    bots = [event for event in traffic.unique if event["user_agent"] in BOTS]
    assert (truth.bots, truth.bot_events) == (len({event["visitor_id"] for event in bots}), len(bots))
    assert {event["bot_filtering"] for event in traffic.events} == {True}


def test_no_faults_are_made_when_none_are_asked_for() -> None:
    settings = TrafficSettings(300, 1, duplicate_share=0, late_share=0, malformed_share=0, bot_share=0)
    clean = Traffic(settings)
    truth = clean.truth
    assert (clean.refused, truth.duplicate_records, truth.late_records, truth.bots) == ([], 0, 0, 0)
    assert truth.events == truth.unique_events == len(clean.unique)


def test_variation_is_the_one_that_the_sdk_decides() -> None:
    project = Project()
    keys = sorted({choice.experiment_key for choice in project.choices})
    for number in range(300):
        visitor_id = f"v7-20261101-{number}"
        context = project.sdk.create_user_context(visitor_id, {"browser": "chrome"})
        assert context is not None
        decided = context.decide_for_keys(keys, ["DISABLE_DECISION_EVENT"])
        expected = {key: decision.variation_key for key, decision in decided.items() if decision.rule_key}
        assert {choice.experiment_key: choice.variation_key for choice in project.choices_of(visitor_id)} == expected


def test_posted_bytes_are_those_of_the_sdk(traffic: Traffic) -> None:
    """The SDK is asked for every event of one batch of every kind; only its uuid, time and key order may differ."""
    project = Project()
    seen = set()
    for record in traffic.records[:3000]:
        if record.value[:1] != b"{" or record.value[-2:] != b"}}":
            continue
        try:
            CODEC.decode(record.value, 0)
        except ValueError:
            continue
        body = msgspec.json.decode(record.value)["body"]
        for visitor in body["visitors"]:
            (snapshot,) = visitor["snapshots"]
            (event,) = snapshot["events"]
            known = {one["key"]: one["value"] for one in visitor["attributes"]}
            attributes = {name: known[name] for name in Attributes._fields}
            if "decisions" in snapshot:
                context = project.sdk.create_user_context(visitor["visitor_id"], attributes)
                context.decide(snapshot["decisions"][0]["metadata"]["flag_key"])
            else:
                project.sdk.track(event["key"], visitor["visitor_id"], attributes, event.get("tags"))
            posted = project._caught()
            theirs = posted["visitors"][0]["snapshots"][0]["events"][0]
            theirs["uuid"], theirs["timestamp"] = event["uuid"], event["timestamp"]
            assert posted == {**body, "visitors": [visitor]}
            seen.add((event["key"], event["entity_id"]))
    assert len(seen) == 4 + 3


def test_no_sample_ratio_mismatch_and_known_effects_show() -> None:
    big = Truth(TrafficSettings(30_000, 2, seed=3))
    for _ in generate(big.settings, big):
        pass
    project = Project()
    split = {"checkout_button": (50, 50), "search_ranking": (80, 20), "free_shipping": (1, 1, 1), "aa_check": (50, 50)}
    rates = {}
    for key, shares in split.items():
        cells = [(choice, big.total(choice)) for choice in project.choices if choice.experiment_key == key]
        visitors = np.array([cell.visitors for _, cell in cells])
        expected = np.array(shares) / sum(shares) * visitors.sum()
        chi_square = float(((visitors - expected) ** 2 / expected).sum())
        assert chi_square < {2: 10.83, 3: 13.82}[len(shares)]  # p = 0.001 for one and for two degrees of freedom
        rates |= {(key, choice.variation_key): cell.purchasers / cell.visitors for choice, cell in cells}
    assert rates["checkout_button", "green"] / rates["checkout_button", "control"] == pytest.approx(1.15, abs=0.08)
    assert rates["free_shipping", "always"] / rates["free_shipping", "control"] == pytest.approx(1.25, abs=0.15)
    assert rates["aa_check", "a_again"] / rates["aa_check", "a"] == pytest.approx(1.0, abs=0.07)


def test_truth_is_written_as_json(traffic: Traffic) -> None:
    document = msgspec.json.decode(traffic.truth.to_json())
    assert document["events"] == traffic.truth.events
    assert len(document["cells"]) == len(traffic.truth.cells)
    assert sum(cell["visitors"] for cell in document["cells"]) == sum(c.visitors for c in traffic.truth.cells.values())
    assert {(effect["experiment_key"], effect["variation_key"]) for effect in document["effects"]} == set(EFFECTS)
    assert document["settings"]["since"] == "2026-11-01"


def test_every_variation_of_the_datafile_has_an_effect() -> None:
    assert {(choice.experiment_key, choice.variation_key) for choice in Project().choices} == set(EFFECTS)


def test_sdk_starts_no_thread(traffic: Traffic) -> None:
    assert [thread.name for thread in threading.enumerate() if "optimizely" in repr(thread).lower()] == []
    print(f"generated {traffic.events_per_second:,.0f} events/s")


@pytest.mark.parametrize(
    "wrong", [{"days": 0}, {"visitors_per_day": 0}, {"late_share": 1.1}, {"since": date(1999, 1, 1)}]
)
def test_settings_that_cannot_be_generated_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrafficSettings(**wrong)
