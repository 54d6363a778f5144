"""Which cluster readers take, and what is known of each."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline_lib.config import Config
from pipeline_lib.errors import ServerUnavailable
from pipeline_lib.hbase.clusters import QUICK_S, Cluster, configured, open_cluster
from pipeline_lib.hbase.state import State
from pipeline_lib.io.hbase import HBase

ON, RETURNING = "on", "returning"
"""Maintenance of a cluster: serve leaves it out, or writes it again while readers still take the other one."""
NOTES = ("diverged_since", "maintenance")


def notes_of(config: Config, name: str, keepers: Sequence[Cluster] | None = None) -> dict[str, str]:
    """What the clusters know of one of them, by name (NOTES); `keepers` are asked, by default all that answer."""
    found: dict[str, str] = {}
    for keeper in configured(config) if keepers is None else keepers:
        with suppress(ServerUnavailable), open_cluster(config, keeper, QUICK_S) as cluster:
            state = State(cluster)
            state.create()
            found |= {fact: value for fact in NOTES if (value := state.note(name, fact))}
    return found


@dataclass(frozen=True)
class Choice:
    """The cluster to read, and why it is not the first of them, or is read all the same."""

    cluster: HBase
    passed: dict[str, str]


def choose_reader(config: Config) -> Choice:
    """Prod, or Loki while Prod is away, behind or in maintenance. A cluster that is behind is still better than none.

    Raises:
        ServerUnavailable: no cluster answers.
    """
    names = configured(config)
    reasons = {name: _away(config, name) for name in names}
    answering = [name for name, reason in reasons.items() if not reason]
    for name in answering:
        reasons[name] = _behind(notes_of(config, name, answering))
    best = [name for name in answering if not reasons[name]] or answering
    if not best:
        raise ServerUnavailable("; ".join(f"HBase {name}: {reason}" for name, reason in reasons.items()))
    first = not reasons[names[0]]
    passed: dict[str, str] = {} if first else {name: reason for name, reason in reasons.items() if reason}
    return Choice(open_cluster(config, best[0], QUICK_S), passed)


def _away(config: Config, name: Cluster) -> str:
    try:
        with open_cluster(config, name, QUICK_S) as cluster:
            cluster.cluster_id()
    except ServerUnavailable as error:
        return f"away ({error})"
    return ""


def _behind(notes: Mapping[str, str]) -> str:
    if notes.get("maintenance"):
        return f"in maintenance ({notes['maintenance']})"
    return f"behind since {notes['diverged_since']}" if "diverged_since" in notes else ""
