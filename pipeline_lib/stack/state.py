"""What a stack remembers between two commands: HOME/state.json."""

import contextlib
import fcntl
import json
import os
import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline_lib.errors import LodeError
from pipeline_lib.stack.process import Started
from pipeline_lib.stack.server import LOOPBACK

# Below the ports that systems hand out to clients (from 32768): a server that is down does not lose its port to one.
_PORTS = range(20_000, 32_000)


@dataclass
class State:
    """Ports by server and name, and the processes that were started and not yet ended by `down`."""

    ports: dict[str, dict[str, int]] = field(default_factory=dict)
    started: dict[str, Started] = field(default_factory=dict)

    def choose_ports(self, server: str, names: Sequence[str]) -> bool:
        """Keep the server's ports when they are free, so that addresses outlive down and up; else tell, choose others.

        A port of a process that has just ended may be taken for a moment longer.
        """
        kept = self.ports.get(server, {})
        deadline = time.monotonic() + 5
        while set(kept) == set(names):
            if all(_is_free(port) for port in kept.values()):
                return False
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.ports[server] = {}
        for name in names:
            self.ports[server][name] = _free_port({port for ports in self.ports.values() for port in ports.values()})
        return bool(kept)


def read(home: Path) -> State:
    """The state on disk; an empty one when there is none."""
    try:
        kept = json.loads((home / "state.json").read_text())
    except FileNotFoundError:
        return State()
    except ValueError as error:
        raise LodeError(f"{home / 'state.json'} is not JSON: {error}") from error
    return State(kept["ports"], {name: Started(**started) for name, started in kept["started"].items()})


def write(home: Path, state: State, endpoints: Mapping[str, str]) -> None:
    """Replace the state on disk in one step. The endpoints are there for programs that do not import this package."""
    temporary = home / "state.json.new"
    started = {name: asdict(process) for name, process in state.started.items()}
    temporary.write_text(json.dumps({"endpoints": dict(endpoints), "ports": state.ports, "started": started}, indent=1))
    temporary.replace(home / "state.json")


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Let one command at a time change the stack; a second one waits. The system unlocks when a command is killed."""
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _free_port(taken: set[int]) -> int:
    # At random: two stacks that choose at the same moment hardly choose the same.
    for port in random.sample(_PORTS, len(_PORTS)):
        if port not in taken and _is_free(port):
            return port
    raise LodeError("no free loopback port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
