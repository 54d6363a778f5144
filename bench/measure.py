"""What the benches share: how much memory a piece of work takes, and a job's Spark in this process."""

import os
import threading
from contextlib import suppress

import psutil

from pipeline_lib.config import Config
from pipeline_lib.job import submit_command, submit_environment


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


def spark_as_of(config: Config, script: str) -> None:
    """Makes the next session of this process have what spark-submit gives a job."""
    os.environ |= {name: value for name, value in submit_environment(config).items() if name != "PYTHONPATH"}
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join([*submit_command(config, script, [])[1:-1], "pyspark-shell"])
