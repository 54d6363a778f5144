"""A local Airflow on SQLite in a folder of its own: database, processes, and what it takes until it serves."""

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from pipeline_lib.errors import ConfigError, LodeError, ServerUnavailable
from pipeline_lib.job import ROOT
from pipeline_lib.stack import process, state
from pipeline_lib.stack.process import Started
from pipeline_lib.stack.progress import Waiting
from pipeline_lib.stack.server import LOOPBACK

VENV = ROOT / ".venv-airflow"
API, REST = "api-server", ("scheduler", "triggerer", "dag-processor")
_PREPARE = {
    "database": ["db", "migrate"],
    "pools": ["pools", "import", str(ROOT / "conf" / "airflow" / "pools.json")],
    "DAGs": ["dags", "reserialize"],
}
_READY_WITHIN = 300.0
_GRACE = 15.0

Ready = Callable[[Any], bool]


@dataclass(frozen=True)
class ComponentStatus:
    """One process: `up`, `died` or `stopped`."""

    name: str
    state: str
    pid: int | None
    memory_mb: int | None
    log: str


class LocalAirflow:
    """The processes whose database, logs and state are in `home`; all listen on loopback only."""

    def __init__(self, home: Path) -> None:
        self.home = home.expanduser().resolve()

    def up(self, connection: str) -> str:
        """Starts what does not run yet and waits until it serves; returns the address.

        Args:
            connection: `spark_lode` as JSON (connection.py).
        """
        program = VENV / "bin" / "airflow"
        if not program.exists():
            raise ConfigError(f"{VENV} is missing: run `make airflow` (about 140 MB, once), then this again")
        with state.locked(self.home):
            known = state.read(self.home)
            if not any(process.find(started) for started in known.started.values()):
                known.started.clear()
                known.choose_ports(API, ("http",))
                self._write(known)
            environment = self._environment(known.ports[API]["http"], connection)
            address = f"http://{LOOPBACK}:{known.ports[API]['http']}"
            with Waiting([*_PREPARE, API, *REST]) as waiting:
                if not known.started:
                    self._prepare(program, environment, waiting)
                else:
                    for name in _PREPARE:
                        waiting.done(name)
                # Tasks that start before the execution API answers fail: it comes first.
                self._start(known, [API], program, environment)
                self._wait_for(f"{address}/execution/health", known, lambda answer: True)
                waiting.done(API)
                self._start(known, REST, program, environment)
                for name in REST:
                    self._wait_for(f"{address}/api/v2/monitor/health", known, _healthy(name))
                    waiting.done(name)
        return address

    def down(self) -> None:
        """Ends the processes and the tasks that they run; database and logs stay."""
        with state.locked(self.home):
            known = state.read(self.home)
            process.end([each for started in known.started.values() for each in _session(started)], _GRACE)
            known.started.clear()
            self._write(known)

    def status(self) -> list[ComponentStatus]:
        """Every process, started or not."""
        known = state.read(self.home)
        return [self._status(name, known.started.get(name)) for name in (API, *REST)]

    def address(self) -> str | None:
        """Where the web pages are, once it was started."""
        ports = state.read(self.home).ports.get(API)
        return f"http://{LOOPBACK}:{ports['http']}" if ports else None

    def _status(self, name: str, started: Started | None) -> ComponentStatus:
        running = process.find(started) if started else None
        word = "up" if running else "died" if started else "stopped"
        memory = process.memory_mb(running) if running else None
        return ComponentStatus(name, word, running.pid if running else None, memory, str(self._log(name)))

    def _prepare(self, program: Path, environment: Mapping[str, str], waiting: Waiting) -> None:
        """What has to be there before the first process; each step can be repeated."""
        for name, words in _PREPARE.items():
            with self._log(name).open("wb") as log:
                done = subprocess.run(
                    [program, *words], env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
                )
            if done.returncode:
                raise LodeError(self._with_log(name, f"`airflow {' '.join(words)}` ended with {done.returncode}"))
            waiting.done(name)

    def _start(self, known: state.State, names: Sequence[str], program: Path, environment: Mapping[str, str]) -> None:
        for name in names:
            if (started := known.started.get(name)) and process.find(started):
                continue
            words = [name, "--host", LOOPBACK, "--workers", "1"] if name == API else [name]
            known.started[name] = process.spawn([str(program), *words], environment, self.home, self._log(name))
            self._write(known)

    def _wait_for(self, url: str, known: state.State, ready: Ready) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            for name, started in known.started.items():
                if not process.find(started):
                    raise LodeError(self._with_log(name, f"{name} ended while starting"))
            try:
                answer = requests.get(url, timeout=10)
                if answer.ok and ready(answer.json()):
                    return
            except (requests.RequestException, ValueError):
                pass  # it does not listen yet, or answers something unfinished
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"{url} does not answer after {_READY_WITHIN:.0f} s; logs: {self.home / 'logs'}"
                )
            time.sleep(0.5)

    def _environment(self, port: int, connection: str) -> dict[str, str]:
        address = f"http://{LOOPBACK}:{port}"
        settings = {
            "CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "4",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "LOGGING__BASE_LOG_FOLDER": str(self.home / "logs" / "tasks"),
            "API__HOST": LOOPBACK,
            "API__PORT": str(port),
            "API__BASE_URL": address,
            "API_AUTH__JWT_SECRET": self._secret(),
            # On two busy cores the API may take longer than the 5 s that a task would give it.
            "WORKERS__EXECUTION_API_TIMEOUT": "60",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        own = {f"AIRFLOW__{name}": value for name, value in settings.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        return {**kept, **own, "AIRFLOW_HOME": str(self.home), "AIRFLOW_CONN_SPARK_LODE": connection,
                "PYTHONPATH": str(ROOT), "TZ": "UTC"}  # fmt: skip

    def _secret(self) -> str:
        """The key by which the processes know each other; made, random, the first time."""
        path = self.home / "jwt.secret"
        if not path.exists():
            temporary = path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(64))
            temporary.replace(path)
        return path.read_text()

    def _log(self, name: str) -> Path:
        folder = self.home / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def _with_log(self, name: str, message: str) -> str:
        return "\n".join([f"{message}. Its log, {self._log(name)}, ends:", *process.last_lines(self._log(name), 30)])

    def _write(self, known: state.State) -> None:
        state.write(self.home, known, {})


def _healthy(name: str) -> Ready:
    key = name.replace("-", "_")
    return lambda answer: answer.get(key, {}).get("status") == "healthy"


def _session(started: Started) -> list[Started]:
    """A process and all that it has started (the API's worker, tasks, their jobs), even those whose parent has died."""
    if not process.find(started) and psutil.pid_exists(started.pid):
        return []  # Linux gives a number to another process only when nothing is left of its session
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(each.pid) == started.pid:
                found.append(Started(each.pid, each.create_time(), started.log))
    return found
