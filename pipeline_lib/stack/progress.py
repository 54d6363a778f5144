"""Telling on stderr what `up` waits for: one line that changes on a terminal, one line an event elsewhere."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console


class Waiting:
    """Shows which servers are not ready yet."""

    def __init__(self, names: Iterable[str]) -> None:
        self._left = list(names)
        self._began = time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status(self._text()) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        else:
            self._print(self._text())
        return self

    def done(self, name: str) -> None:
        """This one serves."""
        self._left.remove(name)
        self._print(f"{name} is up after {time.monotonic() - self._began:.1f} s")
        if self._status:
            self._status.update(self._text())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._status:
            self._status.stop()

    def _text(self) -> str:
        return f"waiting for {', '.join(self._left)}"

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
