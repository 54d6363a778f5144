"""The shape of an Event API body as collectors keep it, for the decoder to check and read in one go.

Every default is what an absent key means, so that a batch encodes to the keys that differ from it (`omit_defaults`).
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from pipeline_lib.codecs.base import EVENT_TIME_MAX, EVENT_TIME_MIN

Moment = Annotated[int, Meta(ge=EVENT_TIME_MIN, lt=EVENT_TIME_MAX)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1)]
Scalar = str | int | float | bool | None


class Decision(Struct, gc=False, omit_defaults=True):
    """Which variation of which experiment a visitor was put into. The SDKs send null for an id that is not a number."""

    campaign_id: str | None
    experiment_id: str | None
    variation_id: str | None
    is_campaign_holdback: bool = False
    metadata: Any = None


class Event(Struct, gc=False, omit_defaults=True):
    """Something that a visitor did, `timestamp` in ms since the epoch, `revenue` in cents."""

    uuid: Name
    timestamp: Moment
    key: str | None = None
    type: str | None = None
    entity_id: str | None = None
    revenue: Int64 | None = None
    value: float | None = None
    quantity: Int64 | None = None
    tags: dict[str, Any] | None = None
    properties: Any = None


class Snapshot(Struct, gc=False, omit_defaults=True):
    """Events that happened under the same decisions."""

    events: list[Event]
    decisions: list[Decision] | None = None


class Attribute(Struct, gc=False, omit_defaults=True):
    """A property of a visitor at the time of the event."""

    entity_id: str | None = None
    key: str | None = None
    type: str | None = None
    value: Scalar = None


class Visitor(Struct, gc=False, omit_defaults=True):
    """A visitor of one batch; one who did several things may come several times."""

    visitor_id: Name
    snapshots: list[Snapshot]
    session_id: str | None = None
    attributes: list[Attribute] | None = None


class Body(Struct, gc=False, omit_defaults=True):
    """What an SDK posted. Addresses are anonymised unless it says otherwise."""

    account_id: str
    visitors: list[Visitor]
    project_id: str | None = None
    revision: str | None = None
    client_name: str | None = None
    client_version: str | None = None
    anonymize_ip: bool | None = None
    enrich_decisions: Any = None


class Batch(Struct, gc=False, omit_defaults=True):
    """What the collector made of a post, `received_at` in ms since the epoch."""

    received_at: Moment
    body: Body
    client_ip: str | None = None
    user_agent: str | None = None
