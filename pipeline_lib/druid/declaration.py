"""A datasource as its TOML declares it: `[druid]` of a topic, `[druid.TABLE]` of an analysis."""

import re
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline_lib.config import Settings

NAME = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"
COLUMN = r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$"
ROWS = "count"
"""The metric that every datasource has: how many rows of the table a row of Druid stands for. Its sum is the proof."""

Granularity = Literal["none", "minute", "hour", "day"]
SEGMENT_STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


class Metric(Settings):
    """`theta` and `hll` count distinct values of `field`; the others are numbers over rows."""

    kind: Literal["long_sum", "double_sum", "long_min", "long_max", "double_min", "double_max", "theta", "hll"]
    field: str = Field(default="", pattern=rf"^$|{COLUMN}", description="none: the column of the metric's name")
    size: int = Field(default=16384, description="of a theta sketch: exact below it, 2/sqrt(size) at 95 % above it")
    lg_k: int = Field(default=14, ge=4, le=21, description="of an HLL sketch: 1.04/2**(lg_k/2) at one sigma")

    @field_validator("size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value < 16 or value & (value - 1):
            raise ValueError("a theta sketch's size is a power of two, 16 or more")
        return value


class Datasource(Settings):
    """What Druid keeps of a table. Only columns that are named here go in, each a plain one of the Parquet files."""

    datasource: str = Field(default="", description="its name in Druid; none: the table's")
    time: str = Field(default="", pattern=rf"^$|{COLUMN}", description="none: rows are of their partition's whole day")
    segment_granularity: Literal["hour", "day"] = "day"
    query_granularity: Granularity = "hour"
    rollup: bool = True
    dimensions: dict[str, Literal["string", "long", "double"]]
    metrics: dict[str, Metric] = Field(default_factory=dict)
    keep_days: int | None = Field(default=None, ge=1, description="older segments are dropped by `lode druid rules`")

    @field_validator("dimensions", mode="before")
    @classmethod
    def _strings_by_name(cls, value: Any) -> Any:
        return dict.fromkeys(value, "string") if isinstance(value, list) else value

    @model_validator(mode="after")
    def _names_are_distinct_and_plain(self) -> "Datasource":
        if self.datasource and not re.match(NAME, self.datasource):
            raise ValueError(f"datasource {self.datasource!r}: a letter, then letters, digits, '.', '_' and '-'")
        names = [*self.dimensions, *self.metrics]
        if odd := [name for name in names if not re.match(COLUMN, name)]:
            raise ValueError(f"column names {odd}: a letter or '_', then letters, digits, '_', '.' and '-'")
        if taken := sorted({ROWS, "__time", self.time} & set(names)) or sorted(
            set(self.dimensions) & set(self.metrics)
        ):
            raise ValueError(f"names {taken} stand for something else already")
        if not self.time and self.segment_granularity != "day":
            raise ValueError("without a time column rows are known by day only: segment_granularity has to be day")
        return self

    @property
    def step(self) -> timedelta:
        return SEGMENT_STEPS[self.segment_granularity]

    def columns(self) -> list[str]:
        """The columns of the table that are read."""
        read = [self.time, *self.dimensions, *(metric.field or name for name, metric in self.metrics.items())]
        return list(dict.fromkeys(filter(None, read)))
