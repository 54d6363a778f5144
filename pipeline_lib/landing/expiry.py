"""How far a topic's landed days have been removed, as the events table itself remembers it.

The day before which they were is the version of one more application transaction, in the commit that removes them: what
is computed from the table can tell a day that is over from a day without events.
"""

from datetime import date, timedelta

EXPIRY = "lode:expired"
"""The name of the application transaction."""

_EPOCH = date(1970, 1, 1)


def to_version(before: date) -> int:
    """The transaction's version once the days before one are removed: days since 1970-01-01."""
    return (before - _EPOCH).days


def expired_before(version: int | None) -> date | None:
    """The day that a version means; None for a table of which nothing has expired (a version below 0 or none)."""
    return None if version is None or version < 0 else _EPOCH + timedelta(days=version)
