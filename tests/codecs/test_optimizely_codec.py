"""The optimizely codec against the numbers that Optimizely published, and against batches that are wrong in one way."""

import copy
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline_lib.codecs import CodecSettings, Undecodable, events_to_arrow, make_codec

CODEC = make_codec(CodecSettings("optimizely-event-batch"))
NOW = 1_600_104_748_265


def decision(**changes: Any) -> dict[str, Any]:
    return {"campaign_id": "1", "experiment_id": "2", "variation_id": "3"} | changes


def event(**changes: Any) -> dict[str, Any]:
    return {"entity_id": "9", "uuid": "u1", "key": "purchase", "timestamp": NOW} | changes


def batch(*snapshots: dict[str, Any], **body: Any) -> dict[str, Any]:
    visitor = {"visitor_id": "v", "attributes": [], "snapshots": list(snapshots)}
    return {
        "received_at": NOW + 5,
        "client_ip": "10.1.2.3",
        "user_agent": "ua",
        "body": {"account_id": "a", "visitors": [visitor]} | body,
    }


def reason_of(document: Any) -> str:
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(Undecodable) as caught:
        CODEC.decode(value, 0)
    assert CODEC.event_time_range(value, 0) is None
    return caught.value.reason


def fields_of(document: Any) -> dict[str, Any]:
    (found,) = CODEC.decode(json.dumps(document).encode(), 0)
    return found.fields


def to_arrow(values: list[bytes]) -> tuple[Any, list[tuple[int, str]]]:
    return events_to_arrow(CODEC, pa.array(values, pa.binary()), np.zeros(len(values), np.int64))


def sample(folder: Path, name: str) -> list[bytes]:
    """A file of collector batches, one record value a line."""
    return gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes()).splitlines()


def test_clean_sample_has_the_published_counts(e3: Path) -> None:
    values = sample(e3, "collector_batches")
    events, refused = to_arrow(values)
    assert (len(values), refused) == (19_611, [])
    assert Counter(events["event_type"].to_pylist()) == {"decision": 10_000, "conversion": 38_648}
    decided = pa.table([events["variation_id"], events["visitor_id"]], ["variation", "visitor"])
    counted = decided.group_by("variation").aggregate([("visitor", "count_distinct")]).to_pylist()
    units = {row["variation"]: row["visitor_count_distinct"] for row in counted if row["variation"]}
    assert units == {"18802093142": 3304, "18818611832": 3367, "18817551468": 3329}


def test_dirty_sample_refuses_four_records_and_holds_the_same_events(e3: Path) -> None:
    events, refused = to_arrow(sample(e3, "collector_batches_dirty"))
    assert [reason.split(":")[0] for _, reason in refused] == ["no_visitors", "not_json", "missing uuid", "not_json"]
    assert len({reason for _, reason in refused}) == 4
    assert events.num_rows == 51_016
    unique = {row["uuid"]: row for row in events.select(["uuid", "event_type", "bot_filtering"]).to_pylist()}
    assert Counter(row["event_type"] for row in unique.values()) == {"decision": 10_020, "conversion": 38_648}
    people = [row for row in unique.values() if not row["bot_filtering"]]
    assert Counter(row["event_type"] for row in people) == {"decision": 10_000, "conversion": 38_648}


def test_arrow_rows_are_the_decoded_events(e3: Path) -> None:
    values = [*sample(e3, "collector_batches_dirty")[:3000], b"no", json.dumps(batch({"events": [event()]})).encode()]
    events, refused = to_arrow(values)
    expected = []
    for record, value in enumerate(values):
        if record in dict(refused):
            continue
        decoded = CODEC.decode(value, 0)
        times = [one.event_time for one in decoded]
        assert CODEC.event_time_range(value, 0) == (min(times), max(times))
        for index, one in enumerate(decoded):
            expected.append({**one.fields, "event_time": one.event_time, "record": record, "index": index})
    assert pa.Table.from_batches([events]).equals(pa.Table.from_pylist(expected, schema=events.schema))
    events.validate(full=True)


@pytest.mark.parametrize("named", [{"key": "campaign_activated"}, {"key": None, "type": "campaign_activated"}])
def test_decision_event_gives_one_row_for_each_decision(named: dict[str, Any]) -> None:
    snapshot = {
        "decisions": [decision(), decision(experiment_id="7", is_campaign_holdback=True)],
        "events": [event(**named)],
    }
    rows = [one.fields for one in CODEC.decode(json.dumps(batch(snapshot)).encode(), 0)]
    assert [(row["event_type"], row["experiment_id"], row["is_holdback"]) for row in rows] == [
        ("decision", "2", False),
        ("decision", "7", True),
    ]


def test_conversion_beside_decisions_stays_one_row_without_a_choice() -> None:
    row = fields_of(
        batch({"decisions": [decision(), decision()], "events": [event(revenue=12, value=1.5, quantity=2)]})
    )
    assert (row["event_type"], row["experiment_id"], row["is_holdback"]) == ("conversion", None, None)
    assert (row["revenue"], row["value"], row["quantity"]) == (12, 1.5, 2)


def test_values_that_are_not_strings_become_text() -> None:
    tags = {"s": "a", "e": "\ue0003.5", "t": True, "i": 7, "f": 1.5, "n": None, "o": {"a": [1]}}
    document = batch({"events": [event(tags=tags)]})
    document["body"]["visitors"][0]["attributes"] = [
        {"entity_id": "1", "key": "age", "type": "custom", "value": "\ue00041"},
        {"entity_id": "$opt_bot_filtering", "key": "$opt_bot_filtering", "type": "custom", "value": "\ue000true"},
    ]
    row = fields_of(document)
    text = {"s": "a", "e": "3.5", "t": "true", "i": "7", "f": "1.5", "n": None, "o": '{"a":[1]}'}
    assert dict(row["tags"]) == text
    assert row["attributes"][0] == {"id": "1", "name": "age", "type": "custom", "value": "41"}
    assert row["bot_filtering"] is True


@pytest.mark.parametrize(
    ("address", "anonymize", "kept"),
    [
        ("162.227.140.251", None, "162.227.140.0"),
        ("162.227.140.251", True, "162.227.140.0"),
        ("162.227.140.251", False, "162.227.140.251"),
        ("2001:db8:1:2:3:4:5:6", True, "2001:db8:1::"),
        ("10.1.2.3, 162.227.140.251", True, None),
        (None, True, None),
    ],
)
def test_address_is_anonymised_unless_told_otherwise(
    address: str | None, anonymize: bool | None, kept: str | None
) -> None:
    document = batch({"events": [event()]}, anonymize_ip=anonymize)
    document["client_ip"] = address
    assert fields_of(document)["user_ip"] == kept


def test_one_bad_event_refuses_the_whole_record() -> None:
    bad = event()
    del bad["uuid"]
    assert reason_of(batch({"events": [event()]}, {"events": [event(), bad]})).startswith("missing uuid")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"uuid": ""}, "empty"),
        ({"uuid": 5}, "wrong_type"),
        ({"timestamp": NOW // 1000}, "out_of_range"),
        ({"timestamp": NOW * 1000}, "out_of_range"),
        ({"timestamp": float(NOW)}, "wrong_type"),
        ({"timestamp": str(NOW)}, "wrong_type"),
        ({"revenue": 2**63}, "out_of_range"),
        ({"revenue": -(2**63) - 1}, "out_of_range"),
        ({"revenue": 1.5}, "wrong_type"),
        ({"quantity": 10**30}, "out_of_range"),
        ({"value": float("nan")}, "not_json"),
        ({"key": "campaign_activated"}, "no_decisions"),
    ],
)
def test_reason_of_a_bad_event(change: dict[str, Any], reason: str) -> None:
    assert reason_of(batch({"events": [event(**change)]})).split(":")[0] == reason


def test_reasons_of_bad_batches() -> None:
    sound = json.dumps(batch({"events": [event()]})).encode()
    assert CODEC.decode(sound, 0)
    assert reason_of(batch({"events": []})) == "no_events"
    assert reason_of(batch({"events": [event()]}, visitors=[])) == "no_visitors"
    assert reason_of(sound.replace(b'"a"', b'"\xff"')).startswith("not_utf8")
    assert reason_of(sound.replace(b'"body"', b'"x": "\xff", "body"')).startswith("not_utf8")
    assert reason_of(sound[:-1] + b', "user_agent": "other"}') == "duplicate_key"
    assert reason_of(sound[:-1] + b', "x": {"a:\\"": 1, "a:\\"": 1}}') == "duplicate_key"
    assert reason_of(sound[:-1] + b', "x": ' + b"[" * 70 + b"]" * 70 + b"}").startswith("too_deep")
    assert reason_of(b"[" * 1_000_000).startswith("too_deep")
    assert reason_of(sound + b" " * (4 * 1024 * 1024)).startswith("too_large")
    assert reason_of(sound[:-1] + b', "x": 1e999}').startswith("out_of_range")
    with pytest.raises(Undecodable, match="tombstone"):
        CODEC.decode(None, 0)


def test_keys_that_nobody_knows_are_skipped() -> None:
    document = batch({"events": [event(nothing={"a": [1, "}:"]})]}, more=1)
    plain = copy.deepcopy(document)
    del plain["body"]["more"], plain["body"]["visitors"][0]["snapshots"][0]["events"][0]["nothing"]
    assert fields_of(document) == fields_of(plain)
