"""Ways in which a collector's record goes wrong, each with the code of the reason for which the codec refuses it."""

import re
from collections.abc import Callable
from typing import Final, NamedTuple


class Fault(NamedTuple):
    """How a sound record value is spoilt, and the code that the refusal starts with."""

    kind: str
    reason: str
    spoil: Callable[[bytes], bytes]


_VISITORS: Final = re.compile(rb'"visitors":\[.*\]')
_TIMESTAMP: Final = re.compile(rb'"timestamp":(\d{10})(\d{3})')

FAULTS: Final[tuple[Fault, ...]] = (
    Fault("truncated", "not_json", lambda value: value[: len(value) // 2]),
    Fault("error_page", "not_json", lambda value: b"<html>502 Bad Gateway</html>"),
    Fault("empty_value", "not_json", lambda value: b""),
    Fault("invalid_utf8", "not_utf8", lambda value: value.replace(b'"user_agent":"', b'"user_agent":"\xff', 1)),
    Fault("no_visitors", "no_visitors", lambda value: _VISITORS.sub(b'"visitors":[]', value)),
    Fault("no_uuid", "missing uuid", lambda value: value.replace(b'"uuid":', b'"uid":', 1)),
    Fault("time_in_seconds", "out_of_range", lambda value: _TIMESTAMP.sub(rb'"timestamp":\1', value, count=1)),
    Fault("time_as_text", "wrong_type", lambda value: _TIMESTAMP.sub(rb'"timestamp":"\1\2"', value, count=1)),
    Fault("repeated_key", "duplicate_key", lambda value: value[:-1] + b',"user_agent":""}'),
    Fault("nested_bomb", "too_deep", lambda value: value[:-1] + b',"x":' + b"[" * 100 + b"]" * 100 + b"}"),
)
