"""JSON that is refused when two readers could understand it differently, or when reading it could hurt."""

import re
from typing import Any, Final

import msgspec

from pipeline_lib.codecs.base import MAX_DEPTH, MAX_VALUE_BYTES, Undecodable

_ANY: Final = msgspec.json.Decoder()
_ENCODER: Final = msgspec.json.Encoder()
_STRUCTURE: Final = b'"\\{}[]:'
_NOT_STRUCTURE: Final = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
_BRACES_AS_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SHORT_STRING: Final = re.compile(rb'"[^"]*"')


def read_json(value: bytes | None) -> Any:
    """The value as Python objects. Raises Undecodable for what is null, too large, too deep, not UTF-8, not JSON, has a
    number that no double or 4300-digit integer holds, or gives a key of one object twice."""
    keys = count_keys(value)
    assert value is not None
    try:
        document = _ANY.decode(value)
    except UnicodeDecodeError as error:
        raise Undecodable(f"not_utf8: {error.reason}") from None
    except msgspec.ValidationError as error:
        raise Undecodable(f"out_of_range: {error}") from None
    except RecursionError:
        raise Undecodable("too_deep: the decoder gave up") from None
    except ValueError as error:
        raise Undecodable(f"not_json: {error}") from None
    # The decoder keeps the last of two equal keys without a word. Every key has one colon outside strings, so a
    # document that comes back with fewer of them had keys twice.
    if encoded_keys(document) != keys:
        raise Undecodable("duplicate_key")
    return document


def count_keys(value: bytes | None) -> int:
    """How many keys stand in the objects of a JSON value, repeated ones included; any number for what is not JSON.

    Raises Undecodable for what is null, too large or too deep to be given to a decoder.
    """
    if value is None:
        raise Undecodable("tombstone")
    if len(value) > MAX_VALUE_BYTES:
        raise Undecodable(f"too_large: {len(value)} bytes, at most {MAX_VALUE_BYTES}")
    structure = _structure(value)
    if structure.count(b"{") + structure.count(b"[") > MAX_DEPTH and _deeper_than(structure, MAX_DEPTH):
        raise Undecodable(f"too_deep: nested deeper than {MAX_DEPTH}")
    return structure.count(b":")


def encoded_keys(document: Any) -> int:
    """How many keys a decoded document has; of a Struct with `omit_defaults`, those that differ from the defaults."""
    return _structure(_ENCODER.encode(document)).count(b":")


def json_text(value: Any) -> str | None:
    """A decoded JSON value as text: strings as they are, null as None, anything else as compact JSON.

    Optimizely sends some values that are not strings as strings prefixed with U+E000; the prefix is cut off.
    """
    if type(value) is str:
        return value[1:] if value.startswith("\ue000") else value
    if value is None:
        return None
    if value is True:
        return "true"
    if value is False:
        return "false"
    return _ENCODER.encode(value).decode()


def _structure(value: bytes) -> bytes:
    """Only the brackets and colons that are not inside strings; garbage for what is not JSON."""
    if b"\\" in value:
        return _STRING.sub(b"", value).translate(None, _NOT_STRUCTURE)
    # Two quotes side by side can go wherever they are: for any byte the quotes before it stay odd or even in number,
    # which is what says whether it is inside a string. That leaves the few strings with structure in them.
    structure = value.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    return _SHORT_STRING.sub(b"", structure) if b'"' in structure else structure


def _deeper_than(structure: bytes, depth: int) -> bool:
    brackets = structure.translate(_BRACES_AS_BRACKETS, b'":\\')
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return b"[" in brackets
