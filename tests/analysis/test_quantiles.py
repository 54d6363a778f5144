"""Quantiles by order statistics: their intervals cover, and their errors are those of the density."""

from math import pi, sqrt

import numpy as np
import pytest
from scipy import stats

from pipeline_lib.analysis.inference.compare import Settings
from pipeline_lib.analysis.inference.quantiles import Quantile, compare_quantiles, ranks

SETTINGS = Settings()


def quantile(values: np.ndarray, share: float) -> Quantile:
    found = np.sort(values)
    low, at, high = ranks(len(found), share, 0.05)
    return Quantile(len(found), found[at - 1], found[low - 1], found[high - 1])


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_intervals_cover_the_quantile(share: float) -> None:
    rng = np.random.default_rng(7)
    true = stats.lognorm(1).ppf(share)
    covered = sum(q.low <= true <= q.high for q in (quantile(rng.lognormal(0, 1, 800), share) for _ in range(1000)))
    assert 935 <= covered <= 990  # 95 % less two standard errors; the outer ranks cover a little more


def test_standard_error_of_a_median_is_that_of_the_density() -> None:
    """Of a normal distribution: sqrt(pi / 2) times that of the mean."""
    rng = np.random.default_rng(8)
    a, b = rng.normal(10, 2, 40_000), rng.normal(10.1, 2, 40_000)
    found = compare_quantiles(quantile(a, 0.5), quantile(b, 0.5), SETTINGS)
    error = sqrt(pi / 2) * 2 * sqrt(2 / 40_000)
    assert found.difference == pytest.approx(np.median(b) - np.median(a), abs=1e-3)
    assert found.difference_high - found.difference == pytest.approx(1.96 * error, rel=0.1)  # type: ignore[operator]


def test_false_positives_of_a_p95() -> None:
    rng = np.random.default_rng(9)
    arms = [(quantile(rng.lognormal(0, 1, 600), 0.95), quantile(rng.lognormal(0, 1, 600), 0.95)) for _ in range(600)]
    found = sum(compare_quantiles(a, b, SETTINGS).p_value < 0.05 for a, b in arms)  # type: ignore[operator]
    assert found <= 46  # 5 % and three standard errors


def test_equal_values_are_a_reason() -> None:
    zeros = quantile(np.zeros(100), 0.5)
    assert compare_quantiles(zeros, zeros, SETTINGS).reason == "no variance around the quantile in either variation"
    assert compare_quantiles(Quantile(1, 5, 5, 5), zeros, SETTINGS).difference is None
