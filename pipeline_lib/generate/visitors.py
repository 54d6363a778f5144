"""What one visitor does, as moments and events; pure but for the random numbers that it draws."""

from collections.abc import Iterator
from datetime import date
from random import Random
from typing import Final, NamedTuple

from pipeline_lib.generate import effects
from pipeline_lib.generate.sdk import Attributes, Choice
from pipeline_lib.generate.truth import Truth

SECOND: Final = 1000
BEFORE: Final = 11 * 60 * SECOND
"""No visitor does anything longer than this before the exposure (ms)."""
AFTER: Final = 26 * 60 * SECOND
"""No visitor does anything longer than this after the exposure (ms)."""


class Action(NamedTuple):
    """Something to be sent: a decision when there is a choice, else the event of this key; revenue in cents."""

    at: int
    key: str
    choice: Choice | None = None
    revenue: int = 0


class Visitor(NamedTuple):
    """Who does it, and the batches of actions that the SDK would post."""

    visitor_id: str
    user_agent: str
    attributes: Attributes
    batches: list[list[Action]]


def crawl(visitor_id: str, exposed_at: int, choices: list[Choice], random: Random) -> Visitor:
    """A bot: exposed to all experiments, looks at a few pages within a second, buys nothing."""
    views = [Action(exposed_at + 10 + 100 * view, "homepage_view") for view in range(random.randint(1, 5))]
    attributes = Attributes("other", "US", False)
    return Visitor(visitor_id, random.choice(effects.BOTS), attributes, [[*_expose(exposed_at, choices), *views]])


def visit(visitor_id: str, exposed_at: int, choices: list[Choice], random: Random) -> Visitor:
    """A person: may come or even buy before the exposure, may fill a cart after it, may then buy, and buy again."""
    browser, user_agent = random.choices(effects.BROWSERS, (60, 20, 10, 10))[0]
    attributes = Attributes(browser, random.choice(effects.COUNTRIES), random.random() < 0.3)
    rate, value = effects.PURCHASE_RATE, float(effects.ORDER_CENTS_MEDIAN)
    for choice in choices:
        effect = effects.EFFECTS[choice.experiment_key, choice.variation_key]
        rate *= effect.purchase_rate
        value *= effect.order_value
    batches = [[action] for action in _before(exposed_at, random)]
    view = Action(exposed_at + random.randint(50, 2 * SECOND), "homepage_view")
    batches.append([*_expose(exposed_at, choices), view])
    batches += [[action] for action in _after(exposed_at, rate, value, random)]
    return Visitor(visitor_id, user_agent, attributes, batches)


def _expose(exposed_at: int, choices: list[Choice]) -> Iterator[Action]:
    return (Action(exposed_at + delay, "campaign_activated", choice) for delay, choice in enumerate(choices))


def _before(exposed_at: int, random: Random) -> Iterator[Action]:
    if random.random() < effects.EARLY_PURCHASE_RATE:
        at = exposed_at - random.randint(120 * SECOND, 600 * SECOND)
        yield Action(at, "purchase", revenue=_order(effects.ORDER_CENTS_MEDIAN, random))
    if random.random() < effects.EARLY_VIEW_RATE:
        yield Action(exposed_at - random.randint(5 * SECOND, 60 * SECOND), "homepage_view")


def _after(exposed_at: int, rate: float, value: float, random: Random) -> Iterator[Action]:
    buys = random.random() < rate
    if not buys and random.random() >= effects.CART_RATE:
        return
    at = exposed_at + random.randint(30 * SECOND, 600 * SECOND)
    yield Action(at, "add_to_cart")
    if buys:
        at += random.randint(10 * SECOND, 300 * SECOND)
        yield Action(at, "purchase", revenue=_order(value, random))
        if random.random() < effects.SECOND_PURCHASE_RATE:
            at += random.randint(60 * SECOND, 600 * SECOND)
            yield Action(at, "purchase", revenue=_order(value, random))


def _order(median: float, random: Random) -> int:
    return max(1, round(median * random.lognormvariate(0, effects.ORDER_SIGMA)))


def count_visitor(truth: Truth, day: date, visitor: Visitor, choices: list[Choice]) -> None:
    """Adds a person to the cells of the variations that the person is in. An exposure counts from its own moment on."""
    actions = [action for batch in visitor.batches for action in batch]
    first = {action.choice: action.at for action in actions if action.choice}
    for choice in choices:
        later = [action for action in actions if not action.choice and action.at >= first[choice]]
        revenue = sum(action.revenue for action in later)
        cell = truth.cell(day, choice)
        cell.visitors += 1
        cell.purchasers += any(action.key == "purchase" for action in later)
        for action in later:
            cell.conversions[action.key] += 1
        cell.revenue += revenue
        cell.revenue_squares += revenue * revenue


def count_batch(truth: Truth, batch: list[Action], late: bool, again: bool = False) -> None:
    """Adds a sound record to the counts of records and events. `again` marks one that was sent before."""
    decisions = sum(action.choice is not None for action in batch)
    conversions = len(batch) - decisions
    truth.records += 1
    truth.events += len(batch)
    truth.decisions += decisions
    truth.conversions += conversions
    if late:
        truth.late_records += 1
        truth.late_events += len(batch)
    if again:
        truth.duplicate_records += 1
        truth.duplicate_events += len(batch)
    else:
        truth.unique_events += len(batch)
        truth.unique_decisions += decisions
        truth.unique_conversions += conversions
