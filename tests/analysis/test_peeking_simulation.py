"""What looking every day does to intervals: 200 seeded runs of 30 looks, at the level of sufficient statistics."""

import numpy as np
import pytest
from tea_tasting.aggr import Aggregates

from pipeline_lib.analysis.inference.compare import Comparison, Settings, compare
from pipeline_lib.generate.effects import EFFECTS, ORDER_CENTS_MEDIAN, ORDER_SIGMA, PURCHASE_RATE

RUNS, LOOKS, VISITORS = 200, 30, 400
MOST_MISSES = 19
"""Of 200 runs 5 % may miss the effect at some look: 10, and three standard errors (3.1 each) are 19."""


def purchases(rng: np.random.Generator, rate: float) -> list[Aggregates]:
    """One arm at the end of each day, `value` being whether a visitor purchased."""
    done = rng.binomial(VISITORS, rate, LOOKS).cumsum()
    return [_arm(k, k, VISITORS * (n + 1)) for n, k in enumerate(done)]


def revenue(rng: np.random.Generator, rate: float, value: float) -> list[Aggregates]:
    """One arm at the end of each day, `value` being a visitor's cents."""
    sums, found, squares = 0.0, [], 0.0
    for n, buyers in enumerate(rng.binomial(VISITORS, rate, LOOKS)):
        orders = value * ORDER_CENTS_MEDIAN * rng.lognormal(0, ORDER_SIGMA, buyers)
        sums, squares = sums + orders.sum(), squares + (orders**2).sum()
        found.append(_arm(sums, squares, VISITORS * (n + 1)))
    return found


def _arm(total: float, squares: float, count: int) -> Aggregates:
    mean = float(total) / count
    return Aggregates(count, {"value": mean}, {"value": (float(squares) - count * mean**2) / (count - 1)})


def looks(control: list[Aggregates], treatment: list[Aggregates]) -> list[Comparison]:
    return [compare(a, b, Settings(tuning=2 * VISITORS * 10)) for a, b in zip(control, treatment, strict=True)]


def misses(runs: list[list[Comparison]], effect: float, kind: str) -> int:
    """Runs in which the interval leaves the true effect out at some look."""
    return sum(
        any(not getattr(look, f"{kind}_low") <= effect <= getattr(look, f"{kind}_high") for look in run) for run in runs
    )


@pytest.mark.parametrize("variation", ["control", "green"])
def test_purchase_rate(variation: str) -> None:
    rng = np.random.default_rng(11)
    rate = PURCHASE_RATE * EFFECTS["checkout_button", variation].purchase_rate
    runs = [looks(purchases(rng, PURCHASE_RATE), purchases(rng, rate)) for _ in range(RUNS)]
    effect = rate - PURCHASE_RATE
    assert misses(runs, effect, "always_valid") <= MOST_MISSES
    assert misses(runs, effect, "difference") > 0.15 * RUNS  # what daily peeking at a fixed horizon costs


@pytest.mark.parametrize("variation", ["control", "by_margin"])
def test_revenue(variation: str) -> None:
    rng = np.random.default_rng(12)
    factor = EFFECTS["search_ranking", variation].order_value
    runs = [looks(revenue(rng, PURCHASE_RATE, 1.0), revenue(rng, PURCHASE_RATE, factor)) for _ in range(RUNS)]
    effect = (factor - 1) * PURCHASE_RATE * ORDER_CENTS_MEDIAN * float(np.exp(ORDER_SIGMA**2 / 2))
    assert misses(runs, effect, "always_valid") <= MOST_MISSES
    assert misses(runs, effect, "difference") > 0.15 * RUNS
