"""The stack: all local servers of one folder."""

import os
import shlex
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from pipeline_lib.errors import ConfigError, LodeError, ServerUnavailable
from pipeline_lib.stack import jars, process, state
from pipeline_lib.stack.catalog import expand, named, read_servers, server_of, with_required
from pipeline_lib.stack.java import java
from pipeline_lib.stack.progress import Waiting
from pipeline_lib.stack.server import Server, Site

JAVA_OPTIONS = "LODE_STACK_JAVA_OPTIONS"
"""More options for each server's Java, separated by blanks."""
_GRACE = 20.0
_OWN_PATHS = ("servers", "logs", "state.json", "state.json.new", "s3.secret", "s3.new")


@dataclass(frozen=True)
class Status:
    """One server: `up`, `died` (it ended without `down`) or `stopped`."""

    name: str
    state: str
    pid: int | None
    ports: Mapping[str, int]
    memory_mb: int | None
    log: str
    exit_code: int | None
    """How a died server ended; only the process that started it can know, None otherwise. Negative: the signal."""
    last_line: str


class Stack:
    """The servers whose data, logs and state are in `home`. Stacks with different homes run side by side."""

    def __init__(self, home: Path) -> None:
        self.home = home.expanduser().resolve()

    @property
    def servers(self) -> dict[str, Server]:
        """Every server that this stack can have, by name: its stack.toml may change while it runs."""
        return read_servers(self.home)

    def up(self, names: Iterable[str] | None = None, also: Iterable[str] = ()) -> dict[str, str]:
        """Start servers with what they require; returns the endpoints once all serve.

        Args:
            names: servers, groups and roles with all their nodes; none: those that start by default.
            also: more of them.
        """
        servers = self.servers
        return self._up([*expand(servers, names), *named(servers, list(also))])

    def _up(self, servers: Collection[Server]) -> dict[str, str]:
        wanted = with_required(self.servers, servers)
        found = jars.fetch({name: None for server in wanted for name in server.jar_sets})
        with state.locked(self.home):
            _Start(self, wanted, found).run()
        return self.endpoints()

    def down(self, names: Iterable[str] | None = None) -> None:
        """End what was started, or of that these servers, groups and roles: a server only after those that require it."""
        servers = self.servers
        only = {server.name for server in named(servers, list(names))} if names else None
        with state.locked(self.home):
            known = state.read(self.home)
            while left := [name for name in known.started if only is None or name in only]:
                required = {name for running in left for name in server_of(servers, running).requires}
                wave = [name for name in left if name not in required]
                process.end([known.started[name] for name in wave], _GRACE)
                for name in wave:
                    del known.started[name]
                self._write(known)

    def status(self) -> list[Status]:
        """Every server, started or not."""
        known = state.read(self.home)
        return [self._status(name, known) for name in dict.fromkeys([*self.servers, *known.started])]

    def kill(self, name: str) -> None:
        """End a server with SIGKILL, as a crash would."""
        self._check(name)
        with state.locked(self.home):
            started = state.read(self.home).started.get(name)
            if started is None or process.find(started) is None:
                raise LodeError(f"{name} is not running")
            process.kill(started)

    def restart(self, name: str) -> None:
        """Stop one server as `down` would, and start it again on the same data; the others go on."""
        self._check(name)
        with state.locked(self.home):
            known = state.read(self.home)
            if started := known.started.pop(name, None):
                process.end([started], _GRACE)
                self._write(known)
        self._up([self.servers[name]])

    def reset(self) -> None:
        """End all servers and remove their data, logs and credentials. Nothing else in the folder is touched."""
        self.down()
        with state.locked(self.home):
            for name in _OWN_PATHS:
                path = self.home / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def logs(self, name: str, lines: int = 100) -> list[str]:
        """The end of a server's log."""
        self._check(name)
        return process.last_lines(self.log_path(name), lines)

    def log_path(self, name: str) -> Path:
        """Where a server's output goes."""
        return self.home / "logs" / f"{name}.log"

    def endpoints(self) -> dict[str, str]:
        """Addresses of the servers that have been started once, by dotted name."""
        return self._endpoints(state.read(self.home))

    def _endpoints(self, known: state.State) -> dict[str, str]:
        site = Site(self.home, known.ports, {})
        servers = (server for server in self.servers.values() if server.name in known.ports)
        return {key: value for server in servers for key, value in server.endpoints(site).items()}

    def _check(self, name: str) -> None:
        if name not in self.servers:
            raise ConfigError(f"no server {name}; there are {', '.join(self.servers)}")

    def _write(self, known: state.State) -> None:
        state.write(self.home, known, self._endpoints(known))

    def _status(self, name: str, known: state.State) -> Status:
        started, ports = known.started.get(name), known.ports.get(name, {})
        log = self.log_path(name)
        if started is None:
            return Status(name, "stopped", None, ports, None, str(log), None, "")
        if running := process.find(started):
            memory = process.memory_mb(running)
            return Status(name, "up", started.pid, ports, memory, str(log), None, "")
        last = "".join(process.last_lines(log, 1))
        return Status(name, "died", started.pid, ports, None, str(log), process.exit_code(started), last)


class _Start:
    """One `up`: starts each server once those that it requires serve, and waits until all serve."""

    def __init__(self, stack: Stack, wanted: Sequence[Server], found: Mapping[str, Sequence[Path]]) -> None:
        self.stack = stack
        self.pending = list(wanted)
        self.serving: set[str] = set()
        self.known = state.read(stack.home)
        self.jars = found
        self.deadlines: dict[str, float] = {}

    def run(self) -> None:
        """Return when all serve; raise when one ends or takes too long."""
        for server in self.pending:
            if not self._runs(server):
                self.known.started.pop(server.name, None)
                if self.known.choose_ports(server.name, server.port_names):
                    self._no_one_relies_on(server)
        self.stack._write(self.known)
        self.site = Site(self.stack.home, self.known.ports, self.jars)
        with Waiting(server.name for server in self.pending) as waiting:
            while self.pending:
                for server in list(self.pending):
                    if self._serves(server):
                        self.pending.remove(server)
                        self.serving.add(server.name)
                        waiting.done(server.name)
                time.sleep(0.2)

    def _no_one_relies_on(self, moved: Server) -> None:
        """A running server that was configured with the old ports would look for this one in vain."""
        servers = self.stack.servers.values()
        if relying := [s.name for s in servers if moved.name in s.requires and self._runs(s)]:
            raise LodeError(
                f"another program took a port of {moved.name} while it was down, and {', '.join(relying)} looks for it"
                " there: `lode stack down`, then `lode stack up`"
            )

    def _serves(self, server: Server) -> bool:
        if server.name not in self.deadlines:
            if not self.serving.issuperset(server.requires):
                return False
            if not self._runs(server):
                self._spawn(server)
            self.deadlines[server.name] = time.monotonic() + server.ready_within
        if not self._runs(server):
            code = process.exit_code(self.known.started[server.name])
            raise LodeError(self._with_log(server, f"{server.name} ended while starting (exit code {code})"))
        try:
            if server.ready(self.site):
                return True
        except (OSError, ValueError, requests.RequestException):
            pass  # it does not listen yet, or answers something unfinished
        if time.monotonic() > self.deadlines[server.name]:
            late = f"{server.name} does not serve after {server.ready_within:.0f} s"
            raise ServerUnavailable(self._with_log(server, late))
        return False

    def _runs(self, server: Server) -> bool:
        started = self.known.started.get(server.name)
        return started is not None and process.find(started) is not None

    def _spawn(self, server: Server) -> None:
        launch = server.prepare(self.site)
        folder = self.site.folder(server.name)
        flags = [f"-Xmx{server.heap_mb}m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"]
        flags += os.environ.get(JAVA_OPTIONS, "").split()
        flags += [f"-Djava.io.tmpdir={self.site.folder(server.name, 'tmp')}", f"-Dlode.server={server.name}"]
        command = [str(java()), *flags, *launch.arguments]
        formatted = folder / "formatted"
        if launch.format_arguments and not formatted.exists():
            # One process, so that it is on record before the format begins: the shell becomes the server.
            first = shlex.join([str(java()), *launch.format_arguments])
            command = ["/bin/sh", "-c", f"{first} && touch {shlex.quote(str(formatted))} && exec {shlex.join(command)}"]
        class_path = ":".join(str(path) for path in launch.class_path)
        log = self.stack.log_path(server.name)
        self.known.started[server.name] = process.spawn(
            command, _environment(class_path) | dict(launch.environment), folder, log
        )
        self.stack._write(self.known)

    def _with_log(self, server: Server, message: str) -> str:
        tail = "\n".join(self.stack.logs(server.name, 30))
        return f"{message}. Its log, {self.stack.log_path(server.name)}, ends:\n{tail}"


def _environment(class_path: str) -> dict[str, str]:
    """No more of the caller's environment than needed: it may hold secrets, or options meant for other Javas."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"CLASSPATH": class_path, "TZ": "UTC"}
