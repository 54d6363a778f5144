"""The codec "optimizely-event-batch": a body of Optimizely's Event API with the wrapper of the collector that took it.

The value is `{received_at, client_ip, user_agent, body}`; the body holds visitors, these hold snapshots, these events.
Names and rules follow Optimizely's Enriched Events Export where it has them.
"""

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec
import pyarrow as pa

from pipeline_lib.codecs.base import Decoded, Field, Row, Undecodable
from pipeline_lib.codecs.optimizely_batch import Attribute, Batch, Event, Snapshot
from pipeline_lib.codecs.strict_json import count_keys, encoded_keys, json_text, read_json

DECISION_KEY: Final = "campaign_activated"
BOT_FILTERING: Final = "$opt_bot_filtering"

_STRING: Final = pa.string()
_ATTRIBUTE: Final = pa.struct([(name, _STRING) for name in ("id", "name", "type", "value")])
SCHEMA: Final[tuple[Field, ...]] = (
    ("event_type", _STRING),
    ("uuid", _STRING),
    ("visitor_id", _STRING),
    ("session_id", _STRING),
    ("account_id", _STRING),
    ("project_id", _STRING),
    ("revision", _STRING),
    ("campaign_id", _STRING),
    ("experiment_id", _STRING),
    ("variation_id", _STRING),
    ("is_holdback", pa.bool_()),
    ("entity_id", _STRING),
    ("event_name", _STRING),
    ("revenue", pa.int64()),
    ("value", pa.float64()),
    ("quantity", pa.int64()),
    ("tags", pa.map_(_STRING, _STRING)),
    ("attributes", pa.list_(_ATTRIBUTE)),
    ("user_ip", _STRING),
    ("user_agent", _STRING),
    ("client_engine", _STRING),
    ("client_version", _STRING),
    ("received_at", pa.timestamp("ms", tz="UTC")),
    ("bot_filtering", pa.bool_()),
)
_NAMES: Final = tuple(name for name, _ in SCHEMA)
_ATTRIBUTE_NAMES: Final = ("id", "name", "type", "value")
_DECODER: Final = msgspec.json.Decoder(Batch)
_NO_CHOICE: Final = (None, None, None, None)  # campaign, experiment, variation and holdback of a conversion


class OptimizelyCodec:
    """One event row for each event of each snapshot; a decision event gives one for each decision of its snapshot.

    So the uuid of a decision event is shared when its snapshot has several decisions: to drop duplicates of decisions,
    compare uuid and experiment_id. One bad event makes the whole record undecodable: nothing of a batch is half used.
    """

    tells_event_time = True

    def schema(self) -> list[Field]:
        """The fields, the same for every topic."""
        return list(SCHEMA)

    def rows(self, value: bytes | None, timestamp_ms: int) -> list[Row]:
        """The events of the batch; attributes are `(id, name, type, value)`, tags are pairs. Raises Undecodable."""
        batch = _parse(value)
        body = batch.body
        user_ip = batch.client_ip if body.anonymize_ip is False else _anonymous(batch.client_ip)
        head = (body.account_id, body.project_id, body.revision)
        tail = (user_ip, batch.user_agent, body.client_name, body.client_version, batch.received_at)
        rows: list[Row] = []
        for visitor in body.visitors:
            who = (visitor.visitor_id, visitor.session_id, *head)
            end = (_attributes(visitor.attributes), *tail, _bot_filtering(visitor.attributes))
            for snapshot in visitor.snapshots:
                for event in snapshot.events:
                    tags = event.tags and [(key, json_text(tag)) for key, tag in event.tags.items()]
                    what = (event.entity_id, event.key, event.revenue, event.value, event.quantity, tags)
                    if _is_decision(event):
                        for decision in snapshot.decisions or ():
                            choice = (decision.campaign_id, decision.experiment_id, decision.variation_id)
                            holdback = decision.is_campaign_holdback
                            rows.append((event.timestamp, "decision", event.uuid, *who, *choice, holdback, *what, *end))
                    else:
                        rows.append((event.timestamp, "conversion", event.uuid, *who, *_NO_CHOICE, *what, *end))
        return rows

    def decode(self, value: bytes | None, timestamp_ms: int) -> list[Decoded]:
        """The events of the batch, in the order in which they stand in it. Raises Undecodable."""
        events = []
        for row in self.rows(value, timestamp_ms):
            fields = dict(zip(_NAMES, row[1:], strict=True))
            if fields["attributes"] is not None:
                fields["attributes"] = [dict(zip(_ATTRIBUTE_NAMES, a, strict=True)) for a in fields["attributes"]]
            events.append(Decoded(row[0], fields))
        return events

    def event_time_range(self, value: bytes | None, timestamp_ms: int) -> tuple[int, int] | None:
        """The earliest and latest `timestamp` (ms) in the batch; None where `decode` would refuse it.

        It reads and checks all that `decode` does, and saves only the making of rows: to agree with `decode` always, no
        check can be left out.
        """
        try:
            batch = _parse(value)
        except Undecodable:
            return None
        times = [event.timestamp for _, event in _events(batch)]
        return min(times), max(times)


def _parse(value: bytes | None) -> Batch:
    keys = count_keys(value)
    assert value is not None
    try:
        batch = _DECODER.decode(value)
    except (ValueError, RecursionError) as error:
        raise _refusal(value, error) from None
    # Keys that are unknown here, repeated, or at their default are not among those that the batch encodes to. Most
    # batches have none of these; the others are read in full, to refuse what is not sound JSON in the parts skipped.
    if encoded_keys(batch) != keys:
        read_json(value)
    if not batch.body.visitors:
        raise Undecodable("no_visitors")
    empty = True
    for snapshot, event in _events(batch):
        empty = False
        if _is_decision(event) and not snapshot.decisions:
            raise Undecodable(f"no_decisions: event {event.uuid} of key {DECISION_KEY}")
    if empty:
        raise Undecodable("no_events")
    return batch


def _events(batch: Batch) -> Iterator[tuple[Snapshot, Event]]:
    return ((snap, event) for visitor in batch.body.visitors for snap in visitor.snapshots for event in snap.events)


def _is_decision(event: Event) -> bool:
    return event.key == DECISION_KEY or event.type == DECISION_KEY


def _refusal(value: bytes, error: Exception) -> Undecodable:
    try:
        document = read_json(value)
    except Undecodable as refusal:
        return refusal
    body = document.get("body") if isinstance(document, dict) else None
    # Said first, because it tells more about a sender than any field that its empty batch lacks as well.
    if isinstance(body, dict) and body.get("visitors") == []:
        return Undecodable("no_visitors")
    return Undecodable(_reason(str(error)))


def _reason(message: str) -> str:
    """The decoder's message with a code that stays the same over its versions."""
    if message.startswith("Object missing required field"):
        return f"missing {message.split('`')[1]}: {message}"
    if " of length " in message:
        return f"empty: {message}"
    if " >= " in message or " < " in message or " <= " in message or "out of range" in message:
        return f"out_of_range: {message}"
    return f"wrong_type: {message}"


def _attributes(attributes: list[Attribute] | None) -> list[tuple[str | None, ...]] | None:
    if attributes is None:
        return None
    return [(a.entity_id, a.key, a.type, json_text(a.value)) for a in attributes]


def _bot_filtering(attributes: list[Attribute] | None) -> bool | None:
    for attribute in attributes or ():
        if attribute.key == BOT_FILTERING or attribute.entity_id == BOT_FILTERING:
            return {"true": True, "false": False}.get(json_text(attribute.value) or "")
    return None


@lru_cache(maxsize=65_536)
def _anonymous(address: str | None) -> str | None:
    """IPv4 without its last octet, IPv6 without its last 80 bits, None for anything else: it could hold an address."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    kept = 24 if ip.version == 4 else 48
    return str(ipaddress.ip_network((int(ip) >> (ip.max_prefixlen - kept) << (ip.max_prefixlen - kept), kept))[0])
