"""Every server of the stack, by name; and how many nodes each role has, from the stack's own TOML.

# FOLDER/stack.toml
[nodes]
kafka = 3
datanode = 2
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline_lib.config import Settings, read_toml, validated
from pipeline_lib.errors import ConfigError
from pipeline_lib.stack.druid import BROKER, COORDINATOR, HISTORICAL, INDEXER, ZOOKEEPER
from pipeline_lib.stack.hbase import LOKI, PROD, THRIFT_LOKI, THRIFT_PROD
from pipeline_lib.stack.hdfs import DATANODE, NAMENODE
from pipeline_lib.stack.kafka import KAFKA
from pipeline_lib.stack.s3 import S3PROXY
from pipeline_lib.stack.server import Server
from pipeline_lib.stack.spark import MASTER, WORKER
from pipeline_lib.stack.yarn import NODEMANAGER, RESOURCEMANAGER

_ROLES = (
    KAFKA,
    NAMENODE,
    DATANODE,
    S3PROXY,
    PROD,
    THRIFT_PROD,
    LOKI,
    THRIFT_LOKI,
    ZOOKEEPER,
    COORDINATOR,
    BROKER,
    HISTORICAL,
    INDEXER,
    MASTER,
    WORKER,
    RESOURCEMANAGER,
    NODEMANAGER,
)


def servers(nodes: Mapping[str, int]) -> dict[str, Server]:
    """Every server, by name, with so many nodes of each role (its own number where it is not named)."""
    numbered = (role.numbered(n) for role in _ROLES for n in range(1, nodes.get(role.name, role.nodes) + 1))
    return {server.name: server for server in numbered}


SERVERS = servers({})
"""What there is without a stack.toml."""


class StackSettings(Settings):
    """stack.toml, in the stack's folder."""

    nodes: dict[str, Annotated[int, Field(ge=1, le=9)]] = Field(default_factory=dict)


def read_servers(home: Path) -> dict[str, Server]:
    """The servers of the stack in this folder.

    Raises:
        ConfigError: its stack.toml names a role that there is not or that has one node always, or no sensible number.
    """
    path = home / "stack.toml"
    settings = validated(StackSettings, read_toml(path), path) if path.exists() else StackSettings()
    several = [role.name for role in _ROLES if role.scales]
    if wrong := [name for name in settings.nodes if name not in several]:
        raise ConfigError(f"{path}: nodes.{wrong[0]}: the number of nodes can be set of {', '.join(several)}")
    return servers(settings.nodes)


def server_of(servers: Mapping[str, Server], name: str) -> Server:
    """The server of this name; one that a smaller stack.toml no longer has is another node of its role."""
    return servers[name] if name in servers else servers[name.rpartition("-")[0]]


def expand(servers: Mapping[str, Server], names: Iterable[str] | None) -> list[Server]:
    """The same; without names the servers that start by default."""
    if names is None or not (asked := list(names)):
        return [server for server in servers.values() if server.by_default]
    return named(servers, asked)


def named(servers: Mapping[str, Server], asked: Sequence[str]) -> list[Server]:
    """Names of servers, roles (all their nodes) and groups as servers.

    Raises:
        ConfigError: there is none of that name.
    """
    groups = list(dict.fromkeys(server.group for server in servers.values() if server.group))
    if unknown := [name for name in asked if name not in servers and name not in groups]:
        raise ConfigError(f"no server {', '.join(unknown)}; there are {', '.join([*groups, *servers])}")
    return [server for server in servers.values() if {server.name, server.role, server.group} & set(asked)]


def with_required(servers: Mapping[str, Server], asked: Collection[Server]) -> list[Server]:
    """These, and all that they need, in the order of the catalogue."""
    wanted = {server.name for server in asked}
    while more := {needed for name in wanted for needed in servers[name].requires} - wanted:
        wanted |= more
    return [server for server in servers.values() if server.name in wanted]
