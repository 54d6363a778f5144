"""Sample ratio mismatch: whether visitors divide over the variations as declared. Where they do not, no result holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log

import numpy as np
from scipy.special import gammaln
from scipy.stats import chisquare

ALARM = 0.001
"""Fabijan et al. (2019, "Diagnosing sample ratio mismatch in online controlled experiments"): below 0.05, since the test
is done for every experiment, every day."""
LEAST_DEVIATION = 0.001
"""Of a variation's expected visitors. With millions of visitors the test finds a share of 50.02 % where 50 % was declared
(mozilla/experimenter#16010): too little to move a result by anything that people would decide on."""
LEAST_EXPECTED = 5
"""Visitors of a variation; with fewer the chi-square distribution is none (Cochran 1954)."""


@dataclass(frozen=True)
class SampleRatio:
    """`p_value` None: it cannot be told, and `reason` says why; `reason` also tells why a small p is no alarm."""

    p_value: float | None = None
    alarm: bool = False
    reason: str = ""
    expected: dict[str, float] = field(default_factory=dict)


def sample_ratio(counts: Mapping[str, int], split: Mapping[str, float]) -> SampleRatio:
    """The chi-square test of the visitors of each variation against the declared split (weights of any sum)."""
    total, weight = sum(counts.values()), sum(split.values())
    expected = {name: total * share / weight for name, share in split.items()}
    if any(value < LEAST_EXPECTED for value in expected.values()):
        return SampleRatio(reason=f"fewer than {LEAST_EXPECTED} visitors expected in a variation", expected=expected)
    names = list(split)
    p = float(chisquare([counts.get(name, 0) for name in names], [expected[name] for name in names]).pvalue)
    deviation = max(abs(counts.get(name, 0) / expected[name] - 1) for name in names)
    if p >= ALARM:
        return SampleRatio(p, expected=expected)
    if deviation < LEAST_DEVIATION:
        return SampleRatio(p, reason=f"off by {deviation:.3%} at most: too little to matter", expected=expected)
    return SampleRatio(p, True, f"off by {deviation:.2%}: the visitors do not divide as declared", expected)


def sequential_sample_ratio(counts: Sequence[Mapping[str, int]], split: Mapping[str, float]) -> list[float]:
    """An always-valid p at each look: true however often one looks.

    Args:
        counts: visitors of each variation to date, at each look.

    The inverse of the Bayes factor of a Dirichlet(1, ..., 1) prior against the declared split, and its running minimum
    (Lindon & Malek 2020, "Anytime-valid inference for multinomial count data"; Optimizely's ssrm-test looks at every
    visitor and centres its prior on the split).
    """
    weight = sum(split.values())
    names, least, found = list(split), 1.0, []
    for look in counts:
        n = np.array([look.get(name, 0) for name in names], dtype=float)
        null = sum(count * log(split[name] / weight) for name, count in zip(names, n, strict=True))
        evidence = gammaln(len(names)) + gammaln(n + 1).sum() - gammaln(n.sum() + len(names))
        least = min(least, exp(min(0.0, null - float(evidence))))
        found.append(least)
    return found
