"""Server processes: started detached, found again by a later command, ended by their id."""

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline_lib.errors import LodeError

# Children of this very process, kept to reap them: a process that nobody waits for stays in the table as a zombie.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Started:
    """A process, told apart from a later one that was given the same id by the time at which it started."""

    pid: int
    created: float
    log: str


def spawn(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Started:
    """Start a process in its own session: Ctrl-C in the terminal, and the end of this process, leave it alone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return Started(child.pid, psutil.Process(child.pid).create_time(), str(log))


def find(started: Started) -> psutil.Process | None:
    """The running process, or None when it has ended."""
    try:
        process = psutil.Process(started.pid)
        # The system tells the start to 10 ms, counted from a boot time that a clock correction can shift a little.
        same = abs(process.create_time() - started.created) < 2
        # A JVM's first thread may have ended, and look like a zombie, while others still hold its ports.
        if same and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1):
            return process
    except psutil.NoSuchProcess:
        pass
    if child := _children.get(started.pid):
        child.poll()
    return None


def exit_code(started: Started) -> int | None:
    """How it ended, which only the process that started it can know (negative: the signal)."""
    child = _children.get(started.pid)
    return child.poll() if child is not None else None


def end(processes: Sequence[Started], grace: float) -> None:
    """SIGTERM to all, SIGKILL to those that are left after `grace` seconds."""
    running = [process for started in processes if (process := find(started))]
    for process in running:
        _signal(process, kill=False)
    left = _wait(processes, grace)
    for process in left:
        _signal(process, kill=True)
    if left := _wait(processes, 10):
        raise LodeError(f"still running after SIGKILL: {', '.join(str(process.pid) for process in left)}")


def kill(started: Started) -> None:
    """SIGKILL, and wait for the end."""
    if process := find(started):
        _signal(process, kill=True)
        if _wait([started], 10):
            raise LodeError(f"process {started.pid} is still running after SIGKILL")


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill() if kill else process.terminate()


def _wait(processes: Sequence[Started], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while left := [process for started in processes if (process := find(started))]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log, reading at most its last 256 KiB."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 256 * 1024))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def memory_mb(process: psutil.Process) -> int | None:
    """Resident memory; None when it has just ended."""
    try:
        return int(process.memory_info().rss // 2**20)
    except psutil.NoSuchProcess:
        return None
