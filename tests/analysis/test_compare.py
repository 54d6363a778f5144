"""Each figure against another library, or a closed form, on the visitors themselves."""

from math import exp, log, sqrt

import numpy as np
import pytest
from scipy import stats
from statsmodels.api import OLS, add_constant
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from tea_tasting.aggr import Aggregates

from pipeline_lib.analysis.inference.always_valid import half_width, p_value
from pipeline_lib.analysis.inference.compare import Settings, compare
from pipeline_lib.analysis.inference.discovery import adjust

SETTINGS = Settings()


def arm(**columns: np.ndarray) -> Aggregates:
    names = sorted(columns)
    values = np.array([columns[name] for name in names], dtype=float)
    cov = np.atleast_2d(np.cov(values))
    pairs = {(a, b): cov[i, j] for i, a in enumerate(names) for j, b in enumerate(names) if i < j}
    return Aggregates(
        count_=values.shape[1],
        mean_=dict(zip(names, values.mean(axis=1).tolist(), strict=True)),
        var_={name: float(cov[i, i]) for i, name in enumerate(names)},
        cov_={pair: float(value) for pair, value in pairs.items()},
    )


def purchases(done: int, visitors: int) -> Aggregates:
    return arm(value=np.repeat([1.0, 0.0], [done, visitors - done]))


def test_welch_interval_and_p_are_scipys() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(3, 1, 700), rng.lognormal(3.1, 1.2, 900)
    found = compare(arm(value=a), arm(value=b), SETTINGS)
    other = stats.ttest_ind(b, a, equal_var=False)
    interval = other.confidence_interval(0.95)
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert found.p_value == pytest.approx(other.pvalue)
    assert (found.difference_low, found.difference_high) == pytest.approx((interval.low, interval.high))
    assert found.method == "welch"


def test_lift_interval_is_the_delta_method_on_logarithms() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.gamma(2, 5, 4000), rng.gamma(2, 5.4, 4200)
    found = compare(arm(value=a), arm(value=b), SETTINGS)
    error = sqrt(a.var(ddof=1) / len(a) / a.mean() ** 2 + b.var(ddof=1) / len(b) / b.mean() ** 2)
    ratio = b.mean() / a.mean()
    expected = (ratio - 1, ratio * exp(-1.96 * error) - 1, ratio * exp(1.96 * error) - 1)
    assert (found.lift, found.lift_low, found.lift_high) == pytest.approx(expected, rel=1e-3)


def test_ratio_is_the_delta_method() -> None:
    rng = np.random.default_rng(3)
    arms = []
    for mean in (4.0, 4.4):
        orders = rng.poisson(2, 3000) + 1.0
        arms.append((orders * mean + rng.normal(0, 2, 3000), orders))
    found = compare(*(arm(value=n, denominator=d) for n, d in arms), SETTINGS, ratio=True)
    ratios, variances = [], []
    for n, d in arms:
        ratio = n.sum() / d.sum()
        ratios.append(ratio)
        variances.append(np.var(n - ratio * d, ddof=1) / d.mean() ** 2 / len(n))
    error = sqrt(sum(variances))
    assert found.difference == pytest.approx(ratios[1] - ratios[0])
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(ratios[1] - ratios[0]) / error), rel=0.02, abs=1e-12)
    assert found.difference_high - found.difference == pytest.approx(1.96 * error, rel=2e-3)  # type: ignore[operator]


def test_cuped_is_the_regression_on_what_was_before() -> None:
    rng = np.random.default_rng(4)
    before = rng.gamma(2, 10, 6000)
    treated = np.repeat([0.0, 1.0], 3000)
    value = 0.8 * before + rng.normal(0, 5, 6000) + 0.5 * treated
    parts = [arm(value=value[treated == t], before=before[treated == t]) for t in (0, 1)]
    found = compare(*parts, SETTINGS, adjusted=True)
    fitted = OLS(value, add_constant(np.column_stack([treated, before - before.mean()]))).fit(cov_type="HC1")
    assert found.difference == pytest.approx(fitted.params[1], rel=2e-3)
    assert found.p_value == pytest.approx(fitted.pvalues[1], rel=0.05)
    plain = compare(*(arm(value=value[treated == t]) for t in (0, 1)), SETTINGS)
    width = found.difference_high - found.difference_low  # type: ignore[operator]
    assert width < 0.5 * (plain.difference_high - plain.difference_low)  # type: ignore[operator]


def test_cuped_without_anything_before_is_unadjusted_and_says_so() -> None:
    rng = np.random.default_rng(5)
    parts = [arm(value=rng.normal(1, 1, 100), before=np.zeros(100)) for _ in range(2)]
    found = compare(*parts, SETTINGS, adjusted=True)
    assert found.method == "welch; no cuped: nothing differs before the exposure"
    assert found.p_value is not None


def test_always_valid_interval_is_that_of_gbstats() -> None:
    found = compare(purchases(163, 3304), purchases(223, 3329), SETTINGS)
    assert (found.always_valid_low, found.always_valid_high) == pytest.approx((0.00020, 0.03510), abs=1.1e-5)
    assert found.always_valid_p == pytest.approx(0.0453, rel=0.01)
    assert found.p_value == pytest.approx(0.0021212, rel=1e-4)


def test_always_valid_p_is_the_least_alpha_that_leaves_zero_out() -> None:
    p = p_value(0.02, 0.006, 8000, 0.05, 5000)
    rho_square = (-2 * log(0.05) + log(-2 * log(0.05) + 1)) / 5000  # of the stated alpha, also for the interval at p
    grown = 8000 * rho_square + 1
    half = 0.006 * sqrt(8000) * sqrt(2 * grown / (8000**2 * rho_square) * log(sqrt(grown) / p))
    assert half == pytest.approx(0.02)
    assert p_value(0.0, 0.006, 8000, 0.05, 5000) == 1.0
    assert half_width(0.006, 8000, 0.05, 5000) > 1.96 * 0.006  # looking every day has its price


def test_detectable_difference_has_the_stated_power() -> None:
    found = compare(purchases(500, 5000), purchases(520, 5000), SETTINGS)
    assert found.detectable is not None
    spread = sqrt((0.1 * 0.9 + 0.104 * 0.896) / 2)
    power = NormalIndPower().power(found.detectable / spread, 5000, 0.05)
    assert power == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(
    ("control", "treatment", "reason"),
    [
        (purchases(0, 1000), purchases(0, 900), "every visitor of both variations has the same value"),
        (Aggregates(1, {"value": 1.0}, {"value": float("nan")}), purchases(3, 9), "1 visitors in control: two are needed"),
        (Aggregates(9, {"value": float("nan")}, {"value": 1.0}), purchases(3, 9), "a value of control is not finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_a_reason(control: Aggregates, treatment: Aggregates, reason: str) -> None:
    found = compare(control, treatment, SETTINGS)
    assert found.reason == reason
    assert found.difference is found.p_value is found.always_valid_p is None


@pytest.mark.parametrize("visitors", range(60, 80))
def test_a_single_order_has_no_variance_whatever_the_rounding(visitors: int) -> None:
    orders = np.eye(1, visitors)[0]
    one = arm(value=1729.1 * orders, denominator=orders)
    assert compare(one, one, SETTINGS, ratio=True).reason == "every visitor of both variations has the same value"


def test_a_denominator_of_zero_is_a_reason() -> None:
    nothing = arm(value=np.zeros(50), denominator=np.zeros(50))
    some = arm(value=np.arange(50.0), denominator=np.ones(50))
    assert compare(some, nothing, SETTINGS, ratio=True).reason == "the denominator of the variation is zero"


def test_a_control_without_any_conversion_has_a_difference_and_no_lift() -> None:
    found = compare(purchases(0, 1000), purchases(30, 1000), SETTINGS)
    assert found.difference == pytest.approx(0.03)
    assert found.lift is found.lift_low is found.lift_high is None


def test_false_discovery_rate_is_that_of_statsmodels() -> None:
    p_values = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    expected = multipletests(p_values, method="fdr_bh")[1]
    assert adjust(p_values) == pytest.approx(list(expected))
    mixed = adjust([None, *p_values, None])
    assert mixed[0] is mixed[-1] is None
    assert mixed[1:-1] == adjust(p_values)
    assert adjust([None]) == [None]
