"""One chunk into Druid: right, or as it was before.

A task that ended with SUCCESS proves nothing: rows may be missing or thrown away, and nobody may serve them. The load
counts once the task's report, the broker's version and the sum of `count` by query all agree with the table's log. If
they do not, the new segments are marked unused and the old ones used, which makes the old version served again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from pipeline_lib.druid.chunks import Chunk, task_id
from pipeline_lib.druid.declaration import ROWS
from pipeline_lib.druid.proof import own_version, report_problems
from pipeline_lib.errors import LodeError, LostRace, ServerUnavailable, VerificationFailed
from pipeline_lib.io.druid import Druid, Segment, Task
from pipeline_lib.log import fact

_REPORT_S = 20
_TELL_S = 5


@dataclass(frozen=True)
class Published:
    """A task that has ended with SUCCESS, and the version of what it published; None: it published nothing."""

    task: str
    version: str | None


class ChunkLoad:
    """Loads one chunk. `before`: the segments that counted when it began."""

    def __init__(self, druid: Druid, name: str, chunk: Chunk) -> None:
        self.druid, self.name, self.chunk = druid, name, chunk
        self.before = druid.segments(name, chunk.interval)
        self.waited_for: set[str] = set()

    @property
    def version_before(self) -> str | None:
        return max((segment.version for segment in self.before), default=None)

    def run(self, digest: str, make_task: Callable[[str], dict[str, Any]]) -> Published:
        """Submits the chunk's task, or attaches to the one that a run before has submitted, and proves the result.

        Raises:
            LodeError: the task failed or took too long; the version before serves.
            LostRace: another load replaced the chunk meanwhile.
            VerificationFailed: Druid has other rows than the table; the version before serves again.
        """
        task, new = self._submitted(digest, make_task)
        version = self._finish(task)
        if version is None and self.chunk.rows:
            raise VerificationFailed(f"{self.where}: task {task} ended with SUCCESS and published nothing")
        problems = report_problems(self._report(task), self.chunk.rows)
        if version and not problems:
            self._await_served(task, version, {version} if self.chunk.rows else set())
            if (found := rows_served(self.druid, self.name, self.chunk.interval)) != self.chunk.rows:
                problems = [f"queries find {found:,} rows of {self.chunk.rows:,}"]
        if problems and version:
            if self._overtaken(version):
                raise LostRace(f"{self.where}: another load replaced it meanwhile; run the same line again")
            self.take_back(version)
            raise VerificationFailed(f"{self.where}: task {task}: {'; '.join(problems)}. The version before is back")
        fact(
            "ingested" if new else "attached",
            datasource=self.name,
            chunk=self.chunk.name,
            task=task,
            rows=self.chunk.rows,
        )
        return Published(task, version)

    def rewrite(self, digest: str, make_task: Callable[[str], dict[str, Any]]) -> Published:
        """Carries out a task that may not change what queries find, such as a compaction; raises as `run` does."""
        expected = rows_served(self.druid, self.name, self.chunk.interval)
        task, _ = self._submitted(digest, make_task)
        version = self._finish(task)
        if version is None:
            raise VerificationFailed(f"{self.where}: task {task} ended with SUCCESS and published nothing")
        self._await_served(task, version, {version})
        if (found := rows_served(self.druid, self.name, self.chunk.interval)) != expected:
            self.take_back(version)
            raise VerificationFailed(f"{self.where}: task {task}: queries find {found:,} rows of {expected:,}")
        fact("rewritten", datasource=self.name, chunk=self.chunk.name, task=task, rows=expected)
        return Published(task, version)

    @property
    def where(self) -> str:
        return f"{self.name} {self.chunk.interval}"

    def _submitted(self, digest: str, make_task: Callable[[str], dict[str, Any]]) -> tuple[str, bool]:
        """The task of this load that runs or whose result stands; a new one where the last did not hold."""
        for attempt in count():
            task = task_id(self.name, self.chunk, digest, attempt)
            state = self.druid.task(task)
            if state is None and self.druid.submit(make_task(task)):
                return task, True
            state = state or self.druid.task(task)
            if state and (state.status == "RUNNING" or (state.status == "SUCCESS" and self._stands(state))):
                return task, False
        raise AssertionError

    def _stands(self, state: Task) -> bool:
        return self._version_since(state) is not None

    def _version_since(self, state: Task) -> str | None:
        used = self.druid.segments(self.name, self.chunk.interval)
        unused = self.druid.unused(self.name, self.chunk.interval)
        return own_version(state.created, (s.version for s in used), (s.version for s in unused))

    def _finish(self, task: str) -> str | None:
        """Waits for the task; the version that it has published."""
        version, started = None, time.monotonic()
        deadline = started + self.druid.settings.task_timeout_s
        while True:
            state = self.druid.task(task)
            if state and state.status != "RUNNING":
                break
            locks = self.druid.locks(self.name)
            version = next((lock.version for lock in locks if lock.task == task), version)
            if state and state.waits and time.monotonic() - started > _TELL_S:
                self._tell(task, {lock.task for lock in locks if lock.task != task and self._overlaps(lock.interval)})
            if time.monotonic() > deadline:
                return self._abort(task, version, f"took longer than {self.druid.settings.task_timeout_s} s")
            if self.druid.given_up.wait(_pause(started)):
                return self._abort(task, version, "was not waited for")
        if state.status != "SUCCESS":
            self._undo_failed(task, state, version)
        return self._published(state, version)

    def _published(self, state: Task, version: str | None) -> str | None:
        """The version of a task that has ended. What Druid answers about segments may lag a moment behind the task."""
        until = time.monotonic() + _REPORT_S
        while time.monotonic() < until:
            if version is None:
                version = self._version_since(state)
            elif version in {segment.version for segment in self.druid.segments(self.name, self.chunk.interval)}:
                return version
            elif version in {segment.version for segment in self.druid.unused(self.name, self.chunk.interval)}:
                raise LostRace(f"{self.where}: another load replaced it meanwhile; run the same line again")
            time.sleep(0.2)
        return None

    def _abort(self, task: str, version: str | None, reason: str) -> str | None:
        self.druid.shut_down(task)
        until = time.monotonic() + 60
        while (state := self.druid.task(task)) and state.status == "RUNNING" and time.monotonic() < until:
            time.sleep(0.5)
        if state and state.status == "SUCCESS":  # it was quicker than the order to stop
            return self._published(state, version)
        self._drop_published(version)
        holders = f"; it waited for {', '.join(sorted(self.waited_for))}" if self.waited_for else ""
        raise LodeError(f"{self.where}: task {task} {reason} and was shut down{holders}")

    def _undo_failed(self, task: str, state: Task, version: str | None) -> None:
        self._drop_published(version)
        raise LodeError(f"{self.where}: task {task} failed: {state.error or 'Druid does not say why'}")

    def _drop_published(self, version: str | None) -> None:
        """A task can die between publishing and saying so."""
        if version and any(s.version == version for s in self.druid.segments(self.name, self.chunk.interval)):
            self.take_back(version)

    def _report(self, task: str) -> dict[str, Any] | None:
        until = time.monotonic() + _REPORT_S
        while (report := self.druid.report(task)) is None and time.monotonic() < until:
            time.sleep(0.5)
        return report

    def _await_served(self, task: str, version: str, versions: set[str]) -> None:
        started, seconds = time.monotonic(), self.druid.settings.load_timeout_s
        while not serves(self.druid, self.name, self.chunk.interval, versions):
            if self._overtaken(version):
                raise LostRace(f"{self.where}: another load replaced it meanwhile; run the same line again")
            if time.monotonic() > started + seconds:
                self.take_back(version)
                raise ServerUnavailable(
                    f"{self.where}: task {task} published its segments, and no historical served them within {seconds} s:"
                    " are they down, or full? They were taken back"
                )
            if self.druid.given_up.wait(_pause(started)):
                raise LodeError(
                    f"{self.where}: task {task} published its segments, and nobody waited for the proof; run the same"
                    " line again"
                )

    def _overtaken(self, version: str) -> bool:
        return any(s.version > version for s in self.druid.segments(self.name, self.chunk.interval))

    def take_back(self, version: str) -> None:
        """Makes the version before count again, in place of `version`."""
        back = make_current(self.druid, self.name, self.chunk.interval, {version}, self._older(version))
        fact("taken_back", datasource=self.name, chunk=self.chunk.name, version=version, served_again=back)

    def _older(self, version: str) -> Sequence[Segment]:
        older = [segment for segment in self.before if segment.version < version]
        newest = max((segment.version for segment in older), default=None)
        return [segment for segment in older if segment.version == newest]

    def _overlaps(self, interval: str) -> bool:
        (since, until), (a, b) = self.chunk.interval.split("/"), interval.split("/")
        return a < until and since < b

    def _tell(self, task: str, holders: set[str]) -> None:
        if new := holders - self.waited_for:
            self.waited_for |= new
            fact("waits_for_lock", task=task, chunk=self.chunk.name, held_by=", ".join(sorted(new)))


def make_current(druid: Druid, name: str, interval: str, drop: set[str], restore: Sequence[Segment]) -> bool:
    """Makes segments count in place of some versions; whether queries are answered from them in time.

    What is dropped goes first: Druid does not mark used what another version hides. It is done again until it shows,
    since the coordinator marks hidden segments unused by what it knew a moment ago.
    """
    started = time.monotonic()
    versions = {segment.version for segment in restore if not segment.tombstone}
    while True:
        counted = druid.segments(name, interval)
        druid.mark(name, [segment for segment in counted if segment.version in drop], used=False)
        druid.mark(name, [segment for segment in restore if segment not in counted], used=True)
        if serves(druid, name, interval, versions):
            return True
        if time.monotonic() > started + druid.settings.load_timeout_s:
            return False
        time.sleep(_pause(started))


def serves(druid: Druid, name: str, interval: str, versions: set[str]) -> bool:
    """Whether queries are answered from these versions and no others; of an emptied chunk the broker names none."""
    return druid.served(name, interval) == versions and (not versions or druid.loaded(name, interval) >= 100)


def rows_served(druid: Druid, name: str, interval: str) -> int:
    """Rows of the table that queries of an interval find. Caches are left out: they may know an older version."""
    answer = druid.queries.timeseries(
        datasource=name,
        granularity="all",
        intervals=interval,
        aggregations={ROWS: {"type": "longSum", "fieldName": ROWS}},
        context={"useCache": False, "useResultLevelCache": False, "populateCache": False},
    )
    return sum(int(part["result"][ROWS] or 0) for part in answer.result)


def _pause(started: float) -> float:
    """Short at first, for small chunks; a tenth of what was waited already, up to 5 s."""
    return min(5.0, max(0.15, (time.monotonic() - started) / 10))
