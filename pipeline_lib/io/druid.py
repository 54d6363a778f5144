"""Druid: tasks and segments over its HTTP interface, queries by pydruid.

Every call may be repeated: tasks carry ids of ours, and marking a segment twice is marking it once. So a server that is
away is waited for, also in the middle of a load.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import requests
from pydruid.client import BaseDruidClient
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from pipeline_lib.config import DruidSettings
from pipeline_lib.errors import ConfigError, LodeError, ServerUnavailable

RETRY_S = 90
"""How long a server that does not answer is waited for: a coordinator's restart takes half a minute."""
_TASKS, _COORDINATOR = "/druid/indexer/v1", "/druid/coordinator/v1"


class _Away(ServerUnavailable):
    """Worth another try."""


@dataclass(frozen=True)
class Task:
    """A task's state: `RUNNING`, `SUCCESS` or `FAILED`; `waits`: for a lock or for a worker."""

    status: str
    waits: bool
    created: str
    error: str


@dataclass(frozen=True)
class Lock:
    """A task that alone may replace an interval; what it publishes has this version."""

    task: str
    interval: str
    version: str


@dataclass(frozen=True)
class Segment:
    id: str
    interval: str
    version: str
    bytes: int
    tombstone: bool
    """It has no rows and hides those of older versions."""


class Druid:
    """One cluster."""

    def __init__(self, settings: DruidSettings) -> None:
        self.settings = settings
        self.given_up = threading.Event()
        """Set by who no longer waits for loads, such as a person who pressed Ctrl-C: their tasks are shut down."""

    def extensions(self) -> set[str]:
        """What the overlord has loaded: indexers are given the same."""
        return {str(module.get("artifact")) for module in self._coordinator("GET", "/status").get("modules", [])}

    def submit(self, task: dict[str, Any]) -> bool:
        """Hands a task in; False where Druid has one of that id already.

        Raises:
            ConfigError: Druid refuses it for what it says.
        """
        answer = self._send("POST", self._at(f"{_TASKS}/task"), task)
        if (answer.status_code == 400 and "entryAlreadyExists" in answer.text) or "already exists" in answer.text:
            return False
        if answer.status_code == 400:
            raise ConfigError(f"Druid refuses task {task['id']}: {answer.text[:500]}")
        self._checked(answer)
        return True

    def task(self, task: str) -> Task | None:
        answer = self._send("GET", self._at(f"{_TASKS}/task/{task}/status"))
        if answer.status_code == 404:
            return None
        status = self._checked(answer)["status"] or {}
        lines = str(status.get("errorMsg") or "").splitlines()
        waits = status.get("runnerStatusCode") in ("WAITING", "PENDING")
        return Task(status.get("statusCode", "RUNNING"), waits, status.get("createdTime", ""), "".join(lines[:1]))

    def shut_down(self, task: str) -> None:
        self._send("POST", self._at(f"{_TASKS}/task/{task}/shutdown"))

    def report(self, task: str) -> dict[str, Any] | None:
        answer = self._send("GET", self._at(f"{_TASKS}/task/{task}/reports"))
        return None if answer.status_code == 404 else cast(dict[str, Any], self._checked(answer))

    def locks(self, datasource: str) -> list[Lock]:
        """Who holds what; nothing where the release does not tell."""
        answer = self._send(
            "POST", self._at(f"{_TASKS}/activeLocks"), [{"datasource": datasource, "priority": -(2**31)}]
        )
        if answer.status_code == 404:
            return []
        found = self._checked(answer).get("datasourceToLocks", {}).get(datasource, [])
        return [Lock(lock["groupId"], lock["interval"], lock["version"]) for lock in found]

    def segments(self, datasource: str, interval: str) -> list[Segment]:
        """Those that count, of any version, which overlap an interval."""
        answer = self._send(
            "POST", self._at(f"{_COORDINATOR}/metadata/datasources/{datasource}/segments?full"), [interval]
        )
        return [] if answer.status_code == 404 else [_segment(entry) for entry in self._checked(answer) or ()]

    def unused(self, datasource: str, interval: str) -> list[Segment]:
        """Those that no longer count and are not deleted either."""
        where = f"{_COORDINATOR}/metadata/datasources/{datasource}/unusedSegments?interval={interval.replace('/', '_')}"
        found = self._coordinator("GET", where) or ()
        return [_segment(entry.get("dataSegment", entry)) for entry in found]

    def mark(self, datasource: str, segments: Iterable[Segment], used: bool) -> None:
        """Makes segments count, or not. Reads back: Druid 33 answers 500 to what it has done."""
        wanted = {segment.id: segment for segment in segments}
        if not wanted:
            return
        what = "markUsed" if used else "markUnused"
        answer = self._send(
            "POST", self._at(f"{_COORDINATOR}/datasources/{datasource}/{what}"), {"segmentIds": [*wanted]}
        )
        intervals = {segment.interval for segment in wanted.values()}
        now = {segment.id for interval in intervals for segment in self.segments(datasource, interval)}
        if not answer.ok and (set(wanted) - now if used else set(wanted) & now):
            raise LodeError(f"Druid did not {what} segments of {datasource}: {answer.status_code} {answer.text[:300]}")

    def loaded(self, datasource: str, interval: str) -> float:
        """Percent of the interval's segments that servers have."""
        where = f"{_COORDINATOR}/datasources/{datasource}/loadstatus?forceMetadataRefresh=true"
        answer = self._send("GET", self._at(f"{where}&interval={interval.replace('/', '_')}"))
        if answer.status_code in (204, 404):
            return 0.0
        return float((self._checked(answer) or {}).get(datasource, 0.0))

    def served(self, datasource: str, interval: str) -> set[str]:
        """The versions that the broker answers queries of an interval from."""
        where = f"{self.settings.broker}/druid/v2/datasources/{datasource}/candidates"
        answer = self._send("GET", f"{where}?intervals={interval}&numCandidates=1")
        return {str(entry["version"]) for entry in self._checked(answer) or ()}

    def datasources(self) -> list[str]:
        return list(self._coordinator("GET", f"{_COORDINATOR}/metadata/datasources"))

    def rules(self, datasource: str) -> list[dict[str, Any]]:
        return list(self._coordinator("GET", f"{_COORDINATOR}/rules/{datasource}"))

    def set_rules(self, datasource: str, rules: Sequence[dict[str, Any]]) -> None:
        self._checked(self._send("POST", self._at(f"{_COORDINATOR}/rules/{datasource}"), list(rules)))

    @property
    def queries(self) -> "Queries":
        """pydruid's client: topn, timeseries, groupby and the rest."""
        return Queries(self)

    def _at(self, path: str) -> str:
        return self.settings.coordinator.rstrip("/") + path

    def _coordinator(self, method: str, path: str) -> Any:
        return self._checked(self._send(method, self._at(path)))

    def _checked(self, answer: requests.Response) -> Any:
        if not answer.ok:
            raise LodeError(f"Druid at {answer.url}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    def _send(self, method: str, url: str, body: object = None) -> requests.Response:
        """The answer, of any status but those of a server that cannot answer yet."""

        def once() -> requests.Response:
            try:
                answer = requests.request(method, url, json=body, timeout=self.settings.timeout_s)
            except requests.RequestException as error:
                raise _Away(f"Druid at {url} does not answer: {error}") from None
            if answer.status_code in (502, 503, 504) or (answer.status_code == 404 and "leader" in answer.text):
                raise _Away(f"Druid at {url}: {answer.status_code} {answer.text[:300]}")
            return answer

        retrying = Retrying(
            retry=retry_if_exception_type(_Away),
            stop=stop_after_delay(RETRY_S),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        return retrying(once)


class Queries(BaseDruidClient):  # type: ignore[misc]
    """pydruid's queries, sent with the retries and time-outs of `Druid`: pydruid's own transport has neither."""

    def __init__(self, druid: Druid) -> None:
        super().__init__(druid.settings.broker, "druid/v2")
        self._druid = druid

    def _post(self, query: Any) -> Any:
        answer = self._druid._send("POST", f"{self._druid.settings.broker.rstrip('/')}/druid/v2", query.query_dict)
        self._druid._checked(answer)
        query.parse(answer.text)
        return query


def _segment(entry: dict[str, Any]) -> Segment:
    return Segment(entry["identifier"], entry["interval"], entry["version"], int(entry["size"]), _is_tombstone(entry))


def _is_tombstone(entry: dict[str, Any]) -> bool:
    return bool((entry.get("shardSpec") or {}).get("type") == "tombstone")
