"""Which cluster readers take, and what is known of each."""

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


def notes_of(config: Config, name: str) -> dict[str, str]:
    """What the clusters that answer know of one of them, by name (NOTES)."""
    found: dict[str, str] = {}
    for keeper in configured(config):
        with suppress(ServerUnavailable), open_cluster(config, keeper, QUICK_S) as cluster:
            state = State(cluster)
            state.create()
            found |= {fact: value for fact in NOTES if (value := state.note(name, fact))}
    return found


@dataclass(frozen=True)
class Choice:
    """The cluster to read, and why the ones before it in the order were not taken."""

    cluster: HBase
    passed: dict[str, str]


def choose_reader(config: Config) -> Choice:
    """Prod, or Loki while Prod is away, behind or in maintenance. A cluster that is behind is still better than none.

    Raises:
        ServerUnavailable: no cluster answers.
    """
    passed: dict[str, str] = {}
    behind: list[Cluster] = []
    for name in configured(config):
        reason = _reason_against(config, name)
        if not reason:
            return Choice(open_cluster(config, name, QUICK_S), passed)
        passed[name] = reason
        if not reason.startswith("away"):
            behind.append(name)
    if behind:
        return Choice(open_cluster(config, behind[0], QUICK_S), passed)
    raise ServerUnavailable("; ".join(f"HBase {name}: {reason}" for name, reason in passed.items()))


def _reason_against(config: Config, name: Cluster) -> str:
    try:
        with open_cluster(config, name, QUICK_S) as cluster:
            cluster.cluster_id()
    except ServerUnavailable as error:
        return f"away ({error})"
    notes = notes_of(config, name)
    if notes.get("maintenance"):
        return f"in maintenance ({notes['maintenance']})"
    return f"behind since {notes['diverged_since']}" if "diverged_since" in notes else ""
