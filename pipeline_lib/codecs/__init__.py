"""Codecs: the value of a Kafka record -> events."""

from collections.abc import Callable
from typing import Final

from pipeline_lib.codecs.arrow import events_schema, events_to_arrow
from pipeline_lib.codecs.base import Codec, CodecSettings, Decoded, Undecodable
from pipeline_lib.codecs.json_object import JsonCodec
from pipeline_lib.codecs.optimizely import OptimizelyCodec
from pipeline_lib.codecs.raw import RawCodec
from pipeline_lib.errors import ConfigError

__all__ = [
    "CODECS",
    "Codec",
    "CodecSettings",
    "Decoded",
    "Undecodable",
    "events_schema",
    "events_to_arrow",
    "make_codec",
]

CODECS: Final[dict[str, Callable[[CodecSettings], Codec]]] = {
    "raw": lambda settings: RawCodec(),
    "json": JsonCodec,
    "optimizely-event-batch": lambda settings: OptimizelyCodec(),
}


def make_codec(settings: CodecSettings) -> Codec:
    """The codec of a topic. Raises ConfigError for an unknown name or settings that the codec cannot use."""
    if settings.name not in CODECS:
        raise ConfigError(f"codec {settings.name!r} is none of {', '.join(CODECS)}")
    return CODECS[settings.name](settings)
