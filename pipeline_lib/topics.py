"""A topic is one TOML file: how its records are decoded, and what its events hold. Adding a topic takes no code."""

from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field

from pipeline_lib.codecs import make_codec
from pipeline_lib.codecs.base import Codec, CodecSettings
from pipeline_lib.config import Settings, read_toml, validated
from pipeline_lib.druid.declaration import Datasource
from pipeline_lib.errors import ConfigError
from pipeline_lib.hbase.mapping import HBaseMapping

FIELD_TYPES = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("ms", tz="UTC"),
}
"""Spark's DDL name of each type that a json field can have."""

FieldType = Literal["string", "boolean", "int", "bigint", "double", "timestamp"]


class EventTimeSettings(Settings):
    field: str
    format: Literal["ms", "s", "iso8601"] = "ms"


class QualitySettings(Settings):
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1, description="above it `land` ends with 10")


class Topic(Settings):
    name: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    codec: Literal["raw", "json", "optimizely-event-batch"]
    event_time: EventTimeSettings | None = None
    id_field: str = ""
    fields: dict[str, FieldType] = Field(default_factory=dict)
    quality: QualitySettings = QualitySettings()
    keep_days: int | None = Field(default=None, ge=1, description="of landed events, for `lode expire`; none: for ever")
    hbase: HBaseMapping | None = None
    druid: Datasource | None = None

    def make_codec(self) -> Codec:
        return make_codec(
            CodecSettings(
                name=self.codec,
                event_time_field=self.event_time.field if self.event_time else "",
                event_time_format=self.event_time.format if self.event_time else "ms",
                id_field=self.id_field,
                fields=tuple((name, FIELD_TYPES[kind]) for name, kind in self.fields.items()),
            )
        )


def load_topics(folder: Path) -> list[Topic]:
    """All declared topics, by name."""
    return [load_topic(folder, entry.stem) for entry in sorted(folder.glob("*.toml"))]


def load_topic(folder: Path, name: str) -> Topic:
    """The topic that FOLDER/NAME.toml declares."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in folder.glob("*.toml"))) or "none"
        raise ConfigError(f"topic {name!r} is not declared: no file {path}; declared: {known}")
    topic = validated(Topic, read_toml(path), path)
    if topic.name != name:
        raise ConfigError(f"{path}: name = {topic.name!r}: the file's own name is {name!r}")
    if topic.name in (".", ".."):
        raise ConfigError(f"{path}: name = {topic.name!r}: not a topic name")
    if topic.codec == "json" and not (topic.event_time and topic.fields):
        raise ConfigError(f"{path}: codec json needs [event_time] and [fields]")
    if topic.codec != "json" and (topic.event_time or topic.fields or topic.id_field):
        raise ConfigError(f"{path}: codec {topic.codec} fixes its fields; event_time, id_field and fields are for json")
    return topic
