"""What is in the traffic, counted while it is made and not read back from it."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import msgspec

from pipeline_lib.generate.effects import EFFECTS
from pipeline_lib.generate.sdk import Choice
from pipeline_lib.generate.settings import TrafficSettings


@dataclass
class Cell:
    """What the visitors in a variation did on a day: bots left out, every event once, only events after the exposure.

    A visitor lives one day, so cells can be added up over days. `purchasers` are visitors, `conversions` events by
    their key, `revenue` and `revenue_squares` the sums of a visitor's cents and of their squares.
    """

    visitors: int = 0
    purchasers: int = 0
    conversions: Counter[str] = field(default_factory=Counter)
    revenue: int = 0
    revenue_squares: int = 0


@dataclass
class Truth:
    """The counts of a traffic, complete when it has been generated to its end.

    `records` are all there are. `events`, `decisions` and `conversions` are what the sound records hold, repeated ones
    included; `unique_*` are the same after dropping repeated uuids. `late_*` were received an hour or more after they
    happened, repeated ones included. `malformed` counts records by kind, `refusals` by the code of the reason. Bots
    (`bots` are visitors, `bot_events` unique) count everywhere but in the cells.
    """

    settings: TrafficSettings
    records: int = 0
    events: int = 0
    decisions: int = 0
    conversions: int = 0
    unique_events: int = 0
    unique_decisions: int = 0
    unique_conversions: int = 0
    duplicate_records: int = 0
    duplicate_events: int = 0
    late_records: int = 0
    late_events: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    visitors: int = 0
    bots: int = 0
    bot_events: int = 0
    cells: dict[tuple[date, Choice], Cell] = field(default_factory=dict)

    def cell(self, day: date, choice: Choice) -> Cell:
        """The cell of a day and a variation, made when it is not there yet."""
        return self.cells.setdefault((day, choice), Cell())

    def total(self, choice: Choice) -> Cell:
        """The cells of a variation over all days, added up."""
        total = Cell()
        for (_, other), cell in self.cells.items():
            if other == choice:
                total.visitors += cell.visitors
                total.purchasers += cell.purchasers
                total.conversions += cell.conversions
                total.revenue += cell.revenue
                total.revenue_squares += cell.revenue_squares
        return total

    def to_json(self) -> bytes:
        """Everything, with the true effects: factors on the purchase rate and on the order value, against control."""
        document: dict[str, Any] = {
            name: value
            for name, value in vars(self).items()
            if name not in {"settings", "cells", "malformed", "refusals"}
        }
        document["settings"] = asdict(self.settings)
        document["malformed"] = dict(sorted(self.malformed.items()))
        document["refusals"] = dict(sorted(self.refusals.items()))
        document["cells"] = [
            {"date": day, **choice._asdict(), **vars(cell), "conversions": dict(sorted(cell.conversions.items()))}
            for (day, choice), cell in sorted(self.cells.items(), key=lambda item: item[0])
        ]
        document["effects"] = [
            {"experiment_key": experiment, "variation_key": variation, **asdict(effect)}
            for (experiment, variation), effect in EFFECTS.items()
        ]
        return msgspec.json.format(msgspec.json.encode(document), indent=1)
