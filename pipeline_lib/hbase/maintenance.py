"""Routine work on one cluster: serve leaves it out and readers take the other, until it is back and equal."""

from collections.abc import Sequence
from typing import Any

from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError, ServerUnavailable, VerificationFailed
from pipeline_lib.hbase.clusters import Cluster, configured, mapping_of, open_cluster
from pipeline_lib.hbase.diff_run import diff, open_comparison, span_ms
from pipeline_lib.hbase.readers import ON, RETURNING, notes_of
from pipeline_lib.hbase.serve import serve_topic
from pipeline_lib.hbase.state import State
from pipeline_lib.log import fact
from pipeline_lib.topics import Topic


def begin(config: Config, name: Cluster) -> None:
    """Takes the cluster out of serving and reading.

    Raises:
        ConfigError: there is no other cluster, or it is in maintenance itself: nobody could read.
    """
    others = [other for other in configured(config) if other != name]
    if not others:
        raise ConfigError(f"{name} is the only HBase cluster: nothing could be read while it is in maintenance")
    if notes_of(config, others[0]).get("maintenance"):
        raise ConfigError(f"{others[0]} is in maintenance: end that first, or nothing could be read")
    _note(config, name, ON)


def end(config: Config, topics: Sequence[Topic], name: Cluster, run_units: Any) -> int:
    """Serves the cluster what it missed, and gives it back to readers once it is equal to the other one; returns the
    rows compared. Repeated, it goes on.

    Raises:
        VerificationFailed: the clusters differ; readers still take the other one.
    """
    if not notes_of(config, name).get("maintenance"):
        raise ConfigError(f"{name} is not in maintenance")
    _note(config, name, RETURNING)
    compared = 0
    for topic in topics:
        reports = serve_topic(config, topic, Limits(), run_units)
        if away := [f"{report.cluster}: {report.away}" for report in reports if report.away]:
            raise ServerUnavailable("; ".join(away))
        for version in _served(config, topic, name):
            comparison = open_comparison(config, topic, version, ("prod", "loki"), *span_ms(None, None))
            report = diff(comparison, run_units)
            if report.differences.rows:
                raise VerificationFailed(
                    f"table {comparison.table}: {report.differences.rows:,} rows differ between prod and loki, so {name} "
                    f"is not read yet. `lode hbase diff {topic.name}` shows them, `lode hbase sync` mends them"
                )
            compared += report.left_rows
    _note(config, name, None)
    return compared


def _served(config: Config, topic: Topic, name: Cluster) -> list[str]:
    with open_cluster(config, name) as cluster:
        return State(cluster).served(topic.name, mapping_of(topic))


def _note(config: Config, name: Cluster, value: str | None) -> None:
    """In every cluster that answers: the one in question may be down for its maintenance, the other may not."""
    for keeper in configured(config):
        try:
            with open_cluster(config, keeper) as cluster:
                state = State(cluster)
                state.create()
                state.set_note(name, "maintenance", value)
        except ServerUnavailable:
            if keeper != name or value is None:
                raise
    fact("maintenance", cluster=name, state=value or "off")
