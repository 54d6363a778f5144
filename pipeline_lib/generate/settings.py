"""What traffic is asked for, and what a record of it is."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

from pipeline_lib.errors import ConfigError


class Record(NamedTuple):
    """A record for Kafka: the visitor id, the collector's JSON, and when the collector took it (ms since the epoch)."""

    key: bytes
    value: bytes
    timestamp_ms: int


@dataclass(frozen=True)
class TrafficSettings:
    """The size of the traffic and how bad it is. The same settings always give the same bytes.

    `bot_share` is a share of the visitors; the other shares are of the sound records: sent twice, received 1 to 48
    hours after they happened, followed by a malformed one. Raises ConfigError for what cannot be generated.
    """

    visitors_per_day: int = 10_000
    days: int = 7
    since: date = date(2026, 11, 1)
    seed: int = 1
    duplicate_share: float = 0.02
    late_share: float = 0.02
    malformed_share: float = 0.001
    bot_share: float = 0.01

    def __post_init__(self) -> None:
        if self.visitors_per_day < 1 or self.days < 1:
            raise ConfigError("traffic needs at least one visitor a day and one day")
        if not date(2000, 1, 2) <= self.since <= date(2090, 1, 1) or self.days > 3650:
            raise ConfigError("traffic has to lie between 2000 and 2100, over 3650 days at most")
        for name in ("duplicate_share", "late_share", "malformed_share", "bot_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is not between 0 and 1")

    @property
    def since_ms(self) -> int:
        """The first moment of the first day, ms since the epoch, UTC."""
        return int(datetime(self.since.year, self.since.month, self.since.day, tzinfo=UTC).timestamp()) * 1000
