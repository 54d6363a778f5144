"""Intervals that may be looked at every day: the asymptotic confidence sequence of Waudby-Smith et al. (2021, "Time-uniform
central limit theory and asymptotic confidence sequences"), in the form that GrowthBook's gbstats uses.

It covers the true difference at all looks together at rate 1 - alpha, for large samples. It is not the mixture
sequential probability ratio test of Optimizely's Stats Engine: the figures of the two differ.
"""

from math import exp, log, sqrt

from scipy.optimize import brentq

_LEAST = 1e-300


def half_width(error: float, visitors: int, alpha: float, tuning: int) -> float:
    """Half the width of the interval around a difference.

    Args:
        error: standard error of the difference, now.
        visitors: of both variations together.
        tuning: visitors at which the interval is tightest.

    With s2 = error^2 n and rho^2 = (-2 ln a + ln(-2 ln a + 1)) / N*:
    sqrt(s2 2 (n rho^2 + 1) / (n^2 rho^2) ln(sqrt(n rho^2 + 1) / a)).
    """
    return error * sqrt(visitors) * sqrt(_unit_square(visitors, log(alpha), _rho_square(alpha, tuning)))


def p_value(difference: float, error: float, visitors: int, alpha: float, tuning: int) -> float:
    """The least alpha whose interval leaves zero out, rho being held at that of the stated alpha; 1 where none does."""
    rho_square = _rho_square(alpha, tuning)
    wanted = (difference / error) ** 2 / visitors

    def excess(log_alpha: float) -> float:
        return _unit_square(visitors, log_alpha, rho_square) - wanted

    if excess(0.0) >= 0:
        return 1.0
    if excess(log(_LEAST)) <= 0:
        return _LEAST
    return exp(float(brentq(excess, log(_LEAST), 0.0)))


def _rho_square(alpha: float, tuning: int) -> float:
    return (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / tuning


def _unit_square(visitors: int, log_alpha: float, rho_square: float) -> float:
    grown = visitors * rho_square + 1
    return 2 * grown / (visitors**2 * rho_square) * (log(grown) / 2 - log_alpha)
