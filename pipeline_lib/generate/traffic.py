"""The traffic itself: visitors to records, in the order in which a collector would have taken them."""

from collections.abc import Iterator
from datetime import timedelta
from heapq import heappop, heappush
from random import Random
from typing import Final

from pipeline_lib.generate.faults import FAULTS
from pipeline_lib.generate.sdk import Project
from pipeline_lib.generate.settings import Record, TrafficSettings
from pipeline_lib.generate.truth import Truth
from pipeline_lib.generate.visitors import (
    AFTER,
    BEFORE,
    SECOND,
    Action,
    Visitor,
    count_batch,
    count_visitor,
    crawl,
    visit,
)

DAY: Final = 86_400 * SECOND
LATE: Final = 3600 * SECOND
"""An event is late when it is received this long (ms) after it happened, or longer."""
FLUSH: Final = 30 * SECOND
"""The SDKs send a batch after this time (ms) at the latest."""
RETRY: Final = 60 * SECOND
"""A batch is sent again within this time (ms)."""


def generate(settings: TrafficSettings, truth: Truth | None = None) -> Iterator[Record]:
    """The records of the traffic, ordered by the time at which the collector took them (`received_at`).

    Counts into `truth` what it makes; the truth is complete when the iterator is exhausted. All events of a visitor lie
    within one day; late records reach up to two days beyond the last. Bot filtering is switched on for the project, so
    every event carries `$opt_bot_filtering` true, as real traffic does: a bot is known by its user agent.
    """
    truth = Truth(settings) if truth is None else truth
    project = Project()
    # Separate streams: to ask for other shares of faults leaves what visitors do, and their uuids, as they were.
    behaviour, ids, faults = (Random(f"{settings.seed} {use}") for use in ("behaviour", "ids", "faults"))
    waiting: list[tuple[int, int, Record]] = []
    made = 0
    for day in range(settings.days):
        date = settings.since + timedelta(days=day)
        start = settings.since_ms + day * DAY + BEFORE
        step = (DAY - BEFORE - AFTER) / settings.visitors_per_day
        for number in range(settings.visitors_per_day):
            exposed_at = start + int((number + behaviour.random()) * step)
            while waiting and waiting[0][0] < exposed_at - BEFORE:
                yield heappop(waiting)[2]
            visitor_id = f"v{settings.seed}-{date:%Y%m%d}-{number}"
            choices = project.choices_of(visitor_id)
            truth.visitors += 1
            if behaviour.random() < settings.bot_share:
                visitor = crawl(visitor_id, exposed_at, choices, behaviour)
                truth.bots += 1
                truth.bot_events += len(visitor.batches[0])
            else:
                visitor = visit(visitor_id, exposed_at, choices, behaviour)
                count_visitor(truth, date, visitor, choices)
            for record in _records(project, visitor, settings, truth, ids, faults):
                made += 1
                heappush(waiting, (record.timestamp_ms, made, record))
    while waiting:
        yield heappop(waiting)[2]


def _records(
    project: Project, visitor: Visitor, settings: TrafficSettings, truth: Truth, ids: Random, faults: Random
) -> Iterator[Record]:
    """The batches of a visitor as records, those sent twice and those that are malformed included."""
    key = visitor.visitor_id.encode()
    client_ip = f"198.{18 + ids.getrandbits(1)}.{ids.getrandbits(8)}.{ids.getrandbits(8)}"  # set aside for benchmarks
    origin = f'"client_ip":"{client_ip}","user_agent":"{visitor.user_agent}","body":'.encode()
    for batch in visitor.batches:
        rest = origin + project.body_head() + b",".join(_posted(project, visitor, batch, ids)) + b"]}}"
        late = faults.random() < settings.late_share
        # A batch that is sent again is late by two days at most, too.
        delay = faults.randint(LATE, 2 * DAY - RETRY - FLUSH) if late else faults.randint(50, FLUSH)
        received_at = batch[-1].at + delay
        sound = b'{"received_at":%d,%b' % (received_at, rest)
        count_batch(truth, batch, late)
        yield Record(key, sound, received_at)
        if faults.random() < settings.duplicate_share:
            again = received_at + faults.randint(SECOND, RETRY)
            count_batch(truth, batch, late, again=True)
            yield Record(key, b'{"received_at":%d,%b' % (again, rest), again)
        if faults.random() < settings.malformed_share:
            fault = faults.choice(FAULTS)
            truth.records += 1
            truth.malformed[fault.kind] += 1
            truth.refusals[fault.reason] += 1
            yield Record(key, fault.spoil(sound), received_at)


def _posted(project: Project, visitor: Visitor, batch: list[Action], ids: Random) -> Iterator[bytes]:
    """What the SDK would post of each action; the visitor stands once for each, as the SDK has it."""
    key = visitor.visitor_id.encode()
    for action in batch:
        if action.choice:
            yield project.decision(action.choice, visitor.attributes) % (_uuid(ids), action.at, key)
        elif action.key == "purchase":
            template = project.event(action.key, visitor.attributes)
            yield template % (_uuid(ids), action.at, action.revenue, action.revenue, key)
        else:
            yield project.event(action.key, visitor.attributes) % (_uuid(ids), action.at, key)


def _uuid(ids: Random) -> bytes:
    digits = b"%032x" % ids.getrandbits(128)
    return b"%b-%b-4%b-a%b-%b" % (digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:])
