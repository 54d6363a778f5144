"""Logs: one line a fact on stderr, as key=value pairs. Results go to stdout."""

import json
import logging
import sys
from datetime import UTC, datetime

_LOGGER = logging.getLogger("lode")


def configure() -> None:
    """Called by each job's main, never by a library module."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.handlers = [handler]
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def fact(event: str, **values: object) -> None:
    """Logs that something happened, and its circumstances."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    _LOGGER.info(
        " ".join([f"time={time}", f"event={event}", *(f"{key}={_quoted(value)}" for key, value in values.items())])
    )


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and not any(character in text for character in ' "=\n') else json.dumps(text)
