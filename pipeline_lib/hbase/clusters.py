"""The two clusters, and the tables that a topic's declaration asks of each."""

from typing import Literal, get_args

from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError, TargetRefuses
from pipeline_lib.hbase.mapping import HBaseMapping, HBaseVersion
from pipeline_lib.io.hbase import HBase, TableInfo
from pipeline_lib.topics import Topic

Cluster = Literal["prod", "loki"]
CLUSTERS: tuple[Cluster, ...] = get_args(Cluster)


QUICK_S = 3
"""How long a question waits that another cluster can answer as well."""


def configured(config: Config) -> list[Cluster]:
    """The clusters that the deployment has. Raises ConfigError where it has none."""
    names = [name for name in CLUSTERS if getattr(config.hbase, name)]
    if not names:
        raise ConfigError("the deployment has no HBase cluster: set hbase.prod.thrift or hbase.loki.thrift")
    return names


def open_cluster(config: Config, name: str, timeout_s: int | None = None) -> HBase:
    """Raises ConfigError where the deployment has no such cluster."""
    settings = {"prod": config.hbase.prod, "loki": config.hbase.loki}.get(name)
    if settings is None:
        raise ConfigError(f"the deployment has no HBase cluster {name!r}: set hbase.{name}.thrift")
    return HBase(name, settings.model_copy(update={"timeout_s": timeout_s}) if timeout_s else settings)


def mapping_of(topic: Topic) -> HBaseMapping:
    """Raises ConfigError where the topic declares no rows."""
    if topic.hbase is None:
        raise ConfigError(f"topic {topic.name!r} declares no [hbase] mapping")
    return topic.hbase


def ensure_table(cluster: HBase, mapping: HBaseMapping, version: HBaseVersion) -> None:
    """Makes the table where there is none.

    Raises:
        TargetRefuses: there is one, but not as it is declared; nothing was changed.
    """
    found = cluster.describe(version.table)
    if found is None:
        cluster.create_table(version.table, mapping.family, mapping.salt_buckets)
    elif problems := differences(found, mapping):
        where = f"HBase {cluster.name}, table {version.table}"
        raise TargetRefuses("\n".join(f"{where}: {problem}" for problem in problems))


def differences(found: TableInfo, mapping: HBaseMapping) -> list[str]:
    """What a table has otherwise than its declaration asks; more regions than declared are no difference."""
    if mapping.family not in found.families:
        return [f"it has no column family {mapping.family!r}; it has: {', '.join(found.families)}"]
    problems = []
    kept = found.families[mapping.family]
    if kept != 1:
        problems.append(f"family {mapping.family!r} keeps {kept} versions of a cell; declared is 1")
    starts = {split[:1] for split in found.splits if not split[1:].strip(b"\0")}
    if missing := [salt.hex() for salt in mapping.salts[1:] if salt not in starts]:
        problems.append(
            f"no region begins with {', '.join(missing)}: split the table there, or declare other salt_buckets"
        )
    return problems
