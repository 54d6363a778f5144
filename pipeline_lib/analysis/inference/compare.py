"""A variation beside its control: fixed-horizon figures of tea-tasting, and always-valid ones beside them."""

from dataclasses import dataclass
from math import isfinite

from scipy.stats import norm
from tea_tasting.aggr import Aggregates
from tea_tasting.metrics import RatioOfMeans

from pipeline_lib.analysis.inference.always_valid import half_width, p_value


@dataclass(frozen=True)
class Settings:
    """Attributes:
    alpha: rate of false positives of one comparison; intervals cover at 1 - alpha.
    power: of `Comparison.detectable`.
    tuning: visitors of both variations at which the always-valid interval is tightest.
    """

    alpha: float = 0.05
    power: float = 0.8
    tuning: int = 5000


@dataclass(frozen=True)
class Comparison:
    """What a variation's visitors did beside its control's; None where it cannot be told, and `reason` says why.

    Attributes:
        control, treatment: means of a visitor, or ratios; with CUPED, adjusted ones.
        difference: treatment less control, with its fixed-horizon interval.
        lift: the difference as a share of control, with its interval by the delta method on logarithms.
        p_value: fixed horizon, two-sided: true only of a look that was planned.
        always_valid_low, always_valid_high, always_valid_p: of the difference, true at every look (see always_valid).
        detectable: the difference that these visitors would show with the stated power at a fixed horizon.
        method: how the figures were made.
    """

    control: float | None = None
    treatment: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    p_value: float | None = None
    always_valid_low: float | None = None
    always_valid_high: float | None = None
    always_valid_p: float | None = None
    detectable: float | None = None
    method: str = ""
    reason: str = ""


def compare(
    control: Aggregates, treatment: Aggregates, settings: Settings, *, ratio: bool = False, adjusted: bool = False
) -> Comparison:
    """Compares two variations by their sufficient statistics.

    Welch's test; a ratio of means by the delta method; CUPED by Deng, Xu, Kohavi & Walker (2013), with one coefficient of
    both variations together.

    Args:
        control, treatment: of the columns `value`, `denominator` of a ratio, and `before` (`before_denominator`) where
            `adjusted`: the same of each visitor before the exposure.
    """
    denominator = "denominator" if ratio else None
    if reason := _reason(control, treatment, denominator):
        return Comparison(reason=reason)
    before = ("before", "before_denominator" if ratio else None) if adjusted else (None, None)
    varies = not adjusted or _varies(control + treatment, *before)
    columns = ("value", denominator, *(before if varies else (None, None)))
    options = {"alpha": settings.alpha, "confidence_level": 1 - settings.alpha, "equal_var": False}
    found = RatioOfMeans(*columns, use_t=True, **options).analyze_aggregates(control, treatment)
    large = RatioOfMeans(*columns, use_t=False, **options).analyze_aggregates(control, treatment)
    error = float(large.effect_size_ci_upper - large.effect_size) / float(norm.ppf(1 - settings.alpha / 2))
    positive = found.control > 0 and found.treatment > 0
    low, high, p = always_valid(float(found.effect_size), error, int(control.count() + treatment.count()), settings)
    return Comparison(
        control=_finite(found.control),
        treatment=_finite(found.treatment),
        difference=_finite(found.effect_size),
        difference_low=_finite(found.effect_size_ci_lower),
        difference_high=_finite(found.effect_size_ci_upper),
        lift=_finite(found.rel_effect_size) if positive else None,
        lift_low=_finite(found.rel_effect_size_ci_lower) if positive else None,
        lift_high=_finite(found.rel_effect_size_ci_upper) if positive else None,
        p_value=_finite(found.pvalue),
        always_valid_low=low,
        always_valid_high=high,
        always_valid_p=p,
        detectable=detectable(error, settings),
        method=_method(ratio, adjusted, varies),
    )


def always_valid(difference: float, error: float, visitors: int, settings: Settings) -> tuple[float, float, float]:
    """Low and high end of the always-valid interval of a difference, and its p."""
    half = half_width(error, visitors, settings.alpha, settings.tuning)
    p = p_value(difference, error, visitors, settings.alpha, settings.tuning)
    return difference - half, difference + half, p


def detectable(error: float, settings: Settings) -> float:
    """(z of 1 - alpha/2 + z of power) standard errors: the smallest difference found with that power (two-sided)."""
    return float(norm.ppf(1 - settings.alpha / 2) + norm.ppf(settings.power)) * error


def _reason(control: Aggregates, treatment: Aggregates, denominator: str | None) -> str:
    for name, arm in (("control", control), ("the variation", treatment)):
        if arm.count() < 2:
            return f"{arm.count()} visitors in {name}: two are needed"
        if not all(map(isfinite, [*arm.mean_.values(), *arm.var_.values(), *arm.cov_.values()])):
            return f"a value of {name} is not finite"
        if denominator and arm.mean(denominator) == 0:
            return f"the denominator of {name} is zero"
    if not any(_varies(arm, "value", denominator) for arm in (control, treatment)):
        return "every visitor of both variations has the same value"
    return ""


def _varies(arm: Aggregates, value: str | None, denominator: str | None) -> bool:
    """Whether visitors differ, and not by rounding: the terms of a ratio's variance cancel where one is always the same
    multiple of the other (a single order), to something of 1e-16 of their size that depends on the order of the sums."""
    if denominator is None:
        return bool(arm.var(value) > 0)
    if arm.mean(denominator) == 0:
        return False
    ratio = arm.mean(value) / arm.mean(denominator)
    terms = arm.var(value) + ratio**2 * arm.var(denominator)
    return bool(arm.ratio_var(value, denominator) * arm.mean(denominator) ** 2 > 1e-12 * terms)


def _method(ratio: bool, adjusted: bool, varies: bool) -> str:
    name = "delta method" if ratio else "welch"
    if adjusted:
        return f"{name}, cuped" if varies else f"{name}; no cuped: nothing differs before the exposure"
    return name


def _finite(value: float) -> float | None:
    """None for what is not a finite number, as the end of the lift's interval of a mean near zero."""
    return float(value) if isfinite(value) else None
