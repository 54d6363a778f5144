"""Whether visitors divide as declared."""

from math import comb, factorial

import numpy as np
import pytest

from pipeline_lib.analysis.inference.srm import sample_ratio, sequential_sample_ratio

E3 = {"control": 3304, "message_1": 3367, "message_2": 3329}
EQUAL = dict.fromkeys(E3, 1.0)


def test_e3_divides_as_declared() -> None:
    found = sample_ratio(E3, EQUAL)
    assert found.p_value == pytest.approx(0.7394120)
    assert not found.alarm
    assert sample_ratio(E3, dict.fromkeys(E3, 7.0)) == found  # weights of any sum


def test_the_declared_split_is_tested_and_no_equal_one() -> None:
    counts = {"a": 9010, "b": 990}
    assert not sample_ratio(counts, {"a": 9, "b": 1}).alarm
    assert sample_ratio(counts, {"a": 1, "b": 1}).alarm


def test_a_variation_without_visitors_is_an_alarm() -> None:
    assert sample_ratio({"a": 400}, {"a": 1, "b": 1}).alarm


def test_millions_of_visitors_do_not_alarm_by_a_deviation_that_does_not_matter() -> None:
    found = sample_ratio({"a": 50_020_000, "b": 49_980_000}, {"a": 1, "b": 1})
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert not found.alarm
    assert "too little to matter" in found.reason


def test_few_visitors_give_a_reason() -> None:
    found = sample_ratio({"a": 6, "b": 1}, {"a": 1, "b": 1})
    assert found.p_value is None
    assert "expected" in found.reason


def test_sequential_p_is_the_inverse_bayes_factor() -> None:
    """Of two variations the marginal likelihood of k in n under a uniform prior is 1 / ((n + 1) C(n, k))."""
    (p,) = sequential_sample_ratio([{"a": 40, "b": 80}], {"a": 1, "b": 1})
    assert p == pytest.approx(0.5**120 * 121 * comb(120, 40))
    (three,) = sequential_sample_ratio([{"a": 9, "b": 1, "c": 2}], {"a": 1, "b": 1, "c": 1})
    marginal = factorial(2) * factorial(9) * factorial(1) * factorial(2) / factorial(14)
    assert three == pytest.approx(min(1.0, 3.0**-12 / marginal))


def test_daily_looks_rarely_alarm_where_nothing_is_wrong() -> None:
    """Ville's inequality: at most 5 % of runs ever have p < 0.05; of 400, 5 % and three standard errors are 33."""
    rng = np.random.default_rng(1)
    runs = 0
    for _ in range(400):
        counts = rng.multinomial(300, [0.5, 0.3, 0.2], 30).cumsum(axis=0)
        looks = [dict(zip("abc", map(int, row), strict=True)) for row in counts]
        runs += sequential_sample_ratio(looks, {"a": 5, "b": 3, "c": 2})[-1] < 0.05
    assert runs <= 33
