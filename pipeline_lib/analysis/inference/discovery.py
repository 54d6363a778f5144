"""The false discovery rate over what is read together."""

from collections.abc import Sequence

from scipy.stats import false_discovery_control


def adjust(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini & Hochberg's (1995) adjusted p of each; those that are None were no tests, and are not counted."""
    tested = [p for p in p_values if p is not None]
    found = iter(list(false_discovery_control(tested)) if tested else [])
    return [None if p is None else float(next(found)) for p in p_values]
