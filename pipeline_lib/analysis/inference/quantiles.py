"""Quantiles of the visitors of two variations, by their order statistics."""

from dataclasses import dataclass
from math import ceil, exp, floor, sqrt

from scipy.stats import norm

from pipeline_lib.analysis.inference.compare import Comparison, Settings, always_valid, detectable


@dataclass(frozen=True)
class Quantile:
    """A quantile of a variation's visitors, and the order statistics at its confidence interval's ends."""

    count: int
    value: float
    low: float
    high: float


def ranks(count: int, quantile: float, alpha: float) -> tuple[int, int, int]:
    """The ranks (from 1) of the order statistics low, at and high of a quantile.

    n q -+ z sqrt(n q (1 - q)), the outer ones (Deng, Knoblich & Lu 2018, "Applying the delta method in metric analytics",
    section 4, for visitors that are independent).
    """
    half = float(norm.ppf(1 - alpha / 2)) * sqrt(count * quantile * (1 - quantile))
    middle = count * quantile
    low, at, high = floor(middle - half), ceil(middle), ceil(middle + half) + 1
    return max(1, low), max(1, at), min(count, high)


def compare_quantiles(control: Quantile, treatment: Quantile, settings: Settings) -> Comparison:
    """The difference of two quantiles; a quantile's standard error is its interval's width over 2 z."""
    if min(control.count, treatment.count) < 2:
        return Comparison(reason="fewer than two visitors in a variation")
    z = float(norm.ppf(1 - settings.alpha / 2))
    errors = [(arm.high - arm.low) / (2 * z) for arm in (control, treatment)]
    error = sqrt(sum(each**2 for each in errors))
    if not error:
        return Comparison(control.value, treatment.value, reason="no variance around the quantile in either variation")
    difference = treatment.value - control.value
    lift, lift_low, lift_high = _lift(control.value, treatment.value, errors, z)
    low, high, p = always_valid(difference, error, control.count + treatment.count, settings)
    return Comparison(
        control=control.value,
        treatment=treatment.value,
        difference=difference,
        difference_low=difference - z * error,
        difference_high=difference + z * error,
        lift=lift,
        lift_low=lift_low,
        lift_high=lift_high,
        p_value=float(2 * norm.sf(abs(difference) / error)),
        always_valid_low=low,
        always_valid_high=high,
        always_valid_p=p,
        detectable=detectable(error, settings),
        method="order statistics",
    )


def _lift(
    control: float, treatment: float, errors: list[float], z: float
) -> tuple[float | None, float | None, float | None]:
    """By the delta method on the ratio's logarithm, as of means."""
    if control <= 0 or treatment <= 0:
        return None, None, None
    width = z * sqrt((errors[0] / control) ** 2 + (errors[1] / treatment) ** 2)
    ratio = treatment / control
    try:
        return ratio - 1, ratio / exp(width) - 1, ratio * exp(width) - 1
    except OverflowError:
        return ratio - 1, None, None
