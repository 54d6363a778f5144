"""The way back: the version of each chunk that was served before, as Lode's ledger knows it."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline_lib.config import Config
from pipeline_lib.druid.chunks import Chunk, chunks_of
from pipeline_lib.druid.ledger import Ledger, Load
from pipeline_lib.druid.load import make_current, rows_served
from pipeline_lib.druid.sources import Source, druid_settings
from pipeline_lib.errors import ConfigError, ServerUnavailable, VerificationFailed
from pipeline_lib.io.druid import Druid
from pipeline_lib.io.s3 import S3
from pipeline_lib.log import fact
from pipeline_lib.timespan import TimeSpan


@dataclass(frozen=True)
class Step:
    """A chunk's version now and the one to go back to; `rows`: None where Lode did not load it and cannot know."""

    chunk: str
    interval: str
    from_version: str
    to_version: str
    rows: int | None


@dataclass(frozen=True)
class RollbackPlan:
    datasource: str
    steps: Sequence[Step]

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr((self.datasource, list(self.steps))).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        return {"digest": self.digest, "datasource": self.datasource, "chunks": list(map(asdict, self.steps))}


def plan_rollback(config: Config, source: Source, span: TimeSpan) -> RollbackPlan:
    """Changes nothing.

    Raises:
        ConfigError: no chunk of the span has an earlier version that Druid still keeps.
    """
    druid, ledger = Druid(druid_settings(config)), Ledger(S3(config.s3), source.name)
    steps = [
        step for chunk in chunks_of(source.declared, [], span) if (step := _step(druid, ledger, source.name, chunk))
    ]
    if not steps:
        raise ConfigError(f"{source.name}: no chunk of {span} has an earlier version that Druid still keeps")
    return RollbackPlan(source.name, steps)


def execute_rollback(config: Config, source: Source, plan: RollbackPlan) -> None:
    """Carries a plan out, and waits until queries are answered from the versions that it names.

    Raises:
        ServerUnavailable: no historical serves them in time; the segments are marked, so it may still happen.
        VerificationFailed: a version is back and has other rows than when it was loaded.
    """
    druid, ledger = Druid(druid_settings(config)), Ledger(S3(config.s3), source.name)
    for step in plan.steps:
        every = [*druid.segments(source.name, step.interval), *druid.unused(source.name, step.interval)]
        drop = {segment.version for segment in every if segment.version > step.to_version}
        restore = [segment for segment in every if segment.version == step.to_version]
        back = make_current(druid, source.name, step.interval, drop, restore)
        ledger.write(step.chunk, ledger.read(step.chunk).rolled_back(step.to_version))
        if not back:
            raise ServerUnavailable(
                f"{source.name} {step.interval}: no historical serves version {step.to_version} yet"
            )
        found = rows_served(druid, source.name, step.interval)
        if step.rows not in (None, found):
            raise VerificationFailed(
                f"{source.name} {step.interval}: version {step.to_version} has {found:,} rows, not {step.rows:,}"
            )
        fact("rolled_back", datasource=source.name, chunk=step.chunk, version=step.to_version)


def _step(druid: Druid, ledger: Ledger, name: str, chunk: Chunk) -> Step | None:
    counted = druid.segments(name, chunk.interval)
    now = max((segment.version for segment in counted), default=None)
    kept = {segment.version for segment in [*counted, *druid.unused(name, chunk.interval)]}
    older = [load for load in ledger.read(chunk.name).loads if now and load.version < now and load.version in kept]
    if not older or now is None:
        return None
    return Step(chunk.name, chunk.interval, now, older[0].version, _known_rows(older[0]))


def _known_rows(load: Load) -> int | None:
    return load.rows if load.digest else None
