"""What is analysed: one TOML file in conf/analysis names a topic, its metrics and its experiments. No code is needed."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from pipeline_lib.config import Settings, read_toml, validated
from pipeline_lib.druid.declaration import Datasource
from pipeline_lib.errors import ConfigError
from pipeline_lib.timespan import TimeSpan, day_bounds, parse_time

NAME = r"^[A-Za-z0-9_-]{1,100}$"


class Fitting(Settings):
    """Which events are meant.

    Attributes:
        event: the events' name; none: any.
        where: fields and their values, as `revenue` or `tags.category`; all must hold.
    """

    event: str = ""
    where: dict[str, str] = Field(default_factory=dict)


class Metric(Fitting):
    """What is measured of each visitor.

    Attributes:
        kind: `conversion` whether an event happened, `count` how often, `sum` of `value`; `sessions` in how many
            sessions, without `event` and `where` how many there were; `ratio` of two other metrics' totals;
            `quantile` of the visitors' sums.
        value: the field that is summed; `revenue` and `value` are taken from the tag of that name where the field is
            absent, never from both.
        window_hours: how long after the exposure an event counts, its end included; none: as long as the experiment.
        winsorise: the share of visitors above which a visitor's value is replaced by the value at that share, one
            threshold for all variations.
        adjust: whether CUPED takes the same measure from before the exposure into account.
    """

    kind: Literal["conversion", "count", "sum", "sessions", "ratio", "quantile"]
    value: str = ""
    window_hours: float | None = Field(default=None, gt=0)
    winsorise: float | None = Field(default=None, gt=0.5, lt=1)
    adjust: bool = False
    numerator: str = ""
    denominator: str = ""
    quantile: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Metric":
        if (self.kind in ("sum", "quantile")) != bool(self.value):
            raise ValueError("kinds sum and quantile, and no other, need `value`, the field that is summed")
        if (self.kind == "ratio") != bool(self.numerator and self.denominator):
            raise ValueError("kind ratio, and no other, needs `numerator` and `denominator`, the names of two metrics")
        if self.kind == "ratio" and (self.winsorise or self.window_hours or self.event or self.where):
            raise ValueError("a ratio takes its events, windows and winsorising from its two metrics")
        if self.kind == "quantile" and (self.winsorise or self.adjust):
            raise ValueError("a quantile is neither winsorised nor adjusted")
        return self


class Funnel(Settings):
    """Steps that visitors take one after the other, the last one at most `within_hours` after the first."""

    steps: list[Fitting] = Field(min_length=2, max_length=20)
    within_hours: float = Field(default=24, gt=0)


class Retention(Fitting):
    """When a visitor counts as back: at any event, or at those that fit, for so many days from the exposure's on."""

    days: int = Field(default=28, ge=1, le=90)


class Variation(Settings):
    name: str
    share: float = Field(default=1, gt=0, description="of the traffic, beside the others' shares; for the SRM test")


class Experiment(Settings):
    """An experiment as it was meant to run. `until` is exclusive; without it the experiment still runs."""

    id: str = Field(min_length=1, pattern=r"^[^\x00]+$")
    name: str = ""
    since: datetime
    until: datetime | None = None
    control: str
    variations: dict[str, Variation]
    metrics: list[str]
    funnels: list[str] = Field(default_factory=list)
    segments: list[str] = Field(default_factory=list, description="attributes by whose values visitors are divided")
    exposure: Literal["first", "last"] = "first"
    several_variations: Literal["first", "exclude"] = Field(
        default="first", description="a visitor who was seen in several: keeps the one exposed to, or is left out"
    )
    pre_exposure_days: int = Field(default=7, ge=1, le=90)

    @field_validator("since", "until", mode="before")
    @classmethod
    def _utc(cls, value: Any) -> Any:
        return parse_time(str(value)) if value is not None else None

    @model_validator(mode="after")
    def _whole(self) -> "Experiment":
        if self.control not in self.variations:
            raise ValueError(f"control {self.control!r} is none of the variations {sorted(self.variations)}")
        if len(self.variations) < 2:
            raise ValueError("an experiment compares two variations or more")
        if self.until:
            TimeSpan(self.since, self.until)
        return self


class Source(Settings):
    """Measures of visitors from outside the events: a CSV file whose rows count as events named like the source."""

    path: str
    visitor: str
    time: str
    time_format: str = Field(default="", description="Spark's pattern; none: ISO 8601")
    time_zone: str = "UTC"


class Analysis(Settings):
    """A topic's metrics and experiments; days are those of `time_zone`."""

    topic: str
    time_zone: str = "UTC"
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.8, gt=0.5, lt=1)
    tuning: int = Field(default=5000, ge=1, description="visitors at which the always-valid interval is tightest")
    look_back_days: int = Field(default=90, ge=1, description="events older than this before a day are not read for it")
    late_days: int = Field(default=14, ge=1, description="how old a day `--changed` still recomputes")
    metrics: dict[str, Metric]
    experiments: list[Experiment] = Field(min_length=1)
    funnels: dict[str, Funnel] = Field(default_factory=dict)
    retention: Retention = Retention()
    sources: dict[str, Source] = Field(default_factory=dict)
    druid: dict[Literal["traffic", "results"], Datasource] = Field(default_factory=dict)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{value!r} is no time zone like Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> "Analysis":
        for name, metric in self.metrics.items():
            for part in filter(None, (metric.numerator, metric.denominator)):
                if self.metrics.get(part, metric).kind in ("ratio", "quantile"):
                    raise ValueError(f"metric {name}: {part!r} is no metric of kind conversion, count or sum")
        for experiment in self.experiments:
            if unknown := sorted(set(experiment.metrics) - set(self.metrics)):
                raise ValueError(f"experiment {experiment.id}: metrics {unknown} are not declared")
            if unknown := sorted(set(experiment.funnels) - set(self.funnels)):
                raise ValueError(f"experiment {experiment.id}: funnels {unknown} are not declared")
        if len({each.id for each in self.experiments}) < len(self.experiments):
            raise ValueError("an experiment is declared twice")
        return self

    @property
    def measures(self) -> dict[str, Metric]:
        """The metrics that are measured of visitors themselves; ratios are made of these."""
        return {name: metric for name, metric in self.metrics.items() if metric.kind != "ratio"}

    def first_needed(self, day_since: datetime) -> datetime:
        """The earliest event time that the analysis of a day reads: a session may have begun the day before."""
        since = min(each.since - timedelta(days=each.pre_exposure_days) for each in self.experiments)
        return min(max(since, day_since - timedelta(days=self.look_back_days)), day_since - timedelta(days=1))

    def first_day_needed(self, day: date) -> date:
        """The earliest UTC day of event time that the analysis of a day reads."""
        return self.first_needed(day_bounds(day, self.time_zone)[0]).date()


def load_analyses(folder: Path) -> dict[str, Analysis]:
    """All declared analyses, by name."""
    return {path.stem: load_analysis(path) for path in sorted(folder.glob("*.toml"))}


def load_analysis(path: Path) -> Analysis:
    """Raises ConfigError where the file is missing or does not fit."""
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in path.parent.glob("*.toml"))) or "none"
        raise ConfigError(f"analysis {path.stem!r} is not declared: no file {path}; declared: {known}")
    return validated(Analysis, read_toml(path), path)
