"""Whatever the bytes, a codec answers with events or with Undecodable, and its answers agree with each other."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline_lib.codecs import Codec, CodecSettings, Undecodable, events_to_arrow, make_codec
from pipeline_lib.codecs.strict_json import read_json

NOW = 1_600_104_748_265
FIELDS = [
    ("id", pa.string()),
    ("ok", pa.bool_()),
    ("small", pa.int32()),
    ("big", pa.int64()),
    ("ratio", pa.float64()),
    ("at", pa.timestamp("ms", tz="UTC")),
]
CODECS = [
    make_codec(CodecSettings("raw")),
    *(make_codec(CodecSettings("json", "t", time_format, "id", FIELDS)) for time_format in ("ms", "s", "iso8601")),
    make_codec(CodecSettings("optimizely-event-batch")),
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from([NOW, 2**63, -(2**63), 10**400, "\ue000true"]),
)
documents = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=15)
rows = st.fixed_dictionaries(
    {},
    optional={
        name: scalars | st.sampled_from(["2026-11-01T00:00:00Z", NOW, NOW / 1000]) for name, _ in [*FIELDS, ("t", 0)]
    },
)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is right, sometimes anything."""
    return st.integers(0, 24).flatmap(lambda luck: strategy if luck < 24 else documents)


def record(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[Any]:
    return maybe(
        st.fixed_dictionaries(
            {name: maybe(value) for name, value in required.items()},
            optional={name: maybe(value) for name, value in optional.items()} | {"unknown": documents},
        )
    )


times = st.integers(NOW - 10**10, NOW + 10**10)
text = st.text(min_size=1, max_size=8)
decisions = record(
    {"campaign_id": text, "experiment_id": text, "variation_id": text}, is_campaign_holdback=st.booleans()
)
events = record(
    {"uuid": text, "timestamp": times, "key": st.sampled_from(["buy", "campaign_activated"])},
    revenue=st.integers(),
    value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    quantity=st.integers(0, 9),
    tags=st.dictionaries(text, documents, max_size=3),
)
snapshots = record({"events": st.lists(events, max_size=3)}, decisions=st.lists(decisions, max_size=2))
attributes = record({"entity_id": text, "key": text, "value": scalars}, type=text)
visitors = record(
    {"visitor_id": text, "snapshots": st.lists(snapshots, max_size=2)}, attributes=st.lists(attributes, max_size=2)
)
bodies = record({"account_id": text, "visitors": st.lists(visitors, max_size=2)}, anonymize_ip=st.booleans())
batches = record({"received_at": times, "body": bodies}, client_ip=text | st.ip_addresses().map(str), user_agent=text)
values = st.one_of(
    st.none(),
    st.binary(),
    st.one_of(documents, rows, batches).map(lambda document: json.dumps(document).encode()),
    st.one_of(rows, batches).map(lambda document: json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")),
)


def check(codec: Codec, value: bytes | None) -> bool:
    """Whether the value decodes; fails when any two ways to read it differ."""
    earliest_latest = codec.event_time_range(value, NOW)
    batch, refused = events_to_arrow(codec, pa.array([value], pa.binary()), np.array([NOW]))
    try:
        decoded, reason = codec.decode(value, NOW), None
    except Undecodable as error:
        decoded, reason = [], error.reason
    if reason is not None:
        assert earliest_latest is None
        assert (batch.num_rows, refused) == (0, [(0, reason)])
        return False
    assert decoded
    assert refused == []
    moments = [event.event_time for event in decoded]
    assert earliest_latest == (None if codec is CODECS[0] else (min(moments), max(moments)))
    rows = [
        {**event.fields, "event_time": event.event_time, "record": 0, "index": index}
        for index, event in enumerate(decoded)
    ]
    assert batch.equals(pa.RecordBatch.from_pylist(rows, schema=batch.schema))
    return True


@settings(max_examples=600, deadline=None)
@given(values)
@example(b'{"t": 1600104748265, "id": "\\ud800"}')
@example(b'{"t": 1600104748265, "id": "a", "ratio": 1' + b"0" * 4400 + b"}")
@example(b"[" * 5000 + b"]" * 5000)
@example(b'{"a":' * 5000 + b"1" + b"}" * 5000)
@example(b'"' * 999)
@example(b"1" * 5000)
@example(b"1e99999")
@example(json.dumps({"t": "9999-12-31T23:59:59+00:00", "id": "a"}).encode())
@example(json.dumps({"t": "0001-01-01T00:00:00+14:00", "id": "a"}).encode())
def test_any_value_is_decoded_or_refused_and_all_readers_agree(value: bytes | None) -> None:
    for codec in CODECS:
        check(codec, value)


def test_the_property_test_meets_both_answers() -> None:
    seen = set()

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(batches.map(lambda document: json.dumps(document).encode()))
    def collect(value: bytes) -> None:
        seen.add(check(CODECS[-1], value))

    collect()
    assert seen == {True, False}


pairs = st.lists(
    st.tuples(
        st.sampled_from(['"a"', '"b:"', '"\\"{"', '"]"', '""', '"é"']), st.sampled_from(["1", '":"', '"\\\\"', "{}"])
    )
)


@given(pairs)
def test_a_repeated_key_is_always_found(items: list[tuple[str, str]]) -> None:
    value = ("[{" + ",".join(f"{key}: {item}" for key, item in items) + "}]").encode()
    if len({key for key, _ in items}) == len(items):
        assert read_json(value) == json.loads(value)
    else:
        with pytest.raises(Undecodable, match="duplicate_key"):
            read_json(value)


@given(st.integers(1, 130), st.text('[]{}":\\,a', max_size=200))
def test_depth_is_counted_outside_strings(depth: int, noise: str) -> None:
    value = b"[" * depth + json.dumps(noise).encode() + b"]" * depth
    if depth <= 64:
        assert read_json(value) == json.loads(value)
    else:
        with pytest.raises(Undecodable, match="too_deep"):
            read_json(value)
