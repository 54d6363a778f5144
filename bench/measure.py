"""How much memory a piece of work takes."""

import threading
from contextlib import suppress

import psutil


class Peak:
    """The most memory (MB, resident) that this process and its children held while the block ran."""

    def __enter__(self) -> "Peak":
        self.mb, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._done.wait(0.2):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.mb = max(self.mb, total / 1e6)
