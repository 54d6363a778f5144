"""What a local server is, and where it lives."""

import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from xml.sax.saxutils import escape

LOOPBACK = "127.0.0.1"

# HDFS and HBase log through Log4j 1, Kafka, Druid and ZooKeeper through Log4j 2, S3Proxy through Logback.
_LOG_SETTINGS = {
    "log4j.properties": """\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
""",
    "log4j2.properties": """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=INFO
rootLogger.appenderRef.out.ref=out
""",
    # At Logback's own DEBUG, uploads ran at 7 MB/s instead of 49.
    "logback.xml": """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %p %c{1}: %m%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
""",
}


@dataclass(frozen=True)
class Site:
    """One stack's folder, ports and jars: what a server needs to know to write its configuration."""

    home: Path
    ports: Mapping[str, Mapping[str, int]]
    jars: Mapping[str, Sequence[Path]]

    def folder(self, name: str, *parts: str) -> Path:
        """A folder of a server (made if it is not there)."""
        path = self.home.joinpath("servers", name, *parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def port(self, server: str, port: str) -> int:
        """A port by its name."""
        return self.ports[server][port]

    def address(self, server: str, port: str) -> str:
        """host:port of a port by its name."""
        return f"{LOOPBACK}:{self.port(server, port)}"

    def nodes(self, role: str) -> list[str]:
        """The names of the nodes of a role that this stack has: the role's own, then ROLE-2, ROLE-3."""
        found = [name for name in self.ports if name == role or re.fullmatch(rf"{re.escape(role)}-\d+", name)]
        return sorted(found, key=lambda name: (len(name), name))


@dataclass(frozen=True)
class Launch:
    """How to run a server: the arguments after `java`, the class path, what has to succeed once before, and what the
    environment needs beside it."""

    arguments: Sequence[str]
    class_path: Sequence[Path]
    format_arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Server(ABC):
    """One server process. A subclass tells how it is configured and when it truly serves."""

    name: str
    jar_sets: tuple[str, ...]
    port_names: tuple[str, ...]
    requires: tuple[str, ...] = ()
    group: str = ""
    heap_mb: int = 256
    ready_within: float = 240
    """Seconds from the start of the process until it has to serve; 18 JVMs may be starting on two cores."""
    by_default: bool = True
    """Whether a plain `up` starts it."""
    scales: bool = False
    """Whether the role may have several nodes (stack.toml says how many)."""
    nodes: int = 1
    """How many nodes the role has unless stack.toml says otherwise."""
    node: int = 1
    """Which of its role's nodes this is."""
    role: str = ""
    """The name of its role's first node, where this is another one."""

    def numbered(self, node: int) -> Self:
        """Another node of this role."""
        return self if node == 1 else replace(self, name=f"{self.name}-{node}", node=node, role=self.name)

    @abstractmethod
    def prepare(self, site: Site) -> Launch:
        """Write the configuration and say how to start."""

    @abstractmethod
    def ready(self, site: Site) -> bool:
        """Ask the server something that it can only answer once it serves. OSError counts as no."""

    def endpoints(self, site: Site) -> dict[str, str]:
        """What clients have to know, by dotted name."""
        return {}


def conf_folder(site: Site, name: str, files: Mapping[str, str]) -> Path:
    """The configuration folder of a server, with its files and the settings of every logger written."""
    folder = site.folder(name, "conf")
    for file_name, text in (_LOG_SETTINGS | dict(files)).items():
        path = folder / file_name
        path.touch(mode=0o600)  # before the text: some of these files hold a secret
        path.write_text(text)
    return folder


def properties(settings: Mapping[str, object]) -> str:
    """Settings as a Java properties file."""
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def hadoop_xml(settings: Mapping[str, object]) -> str:
    """Settings as a Hadoop configuration file."""
    rows = "".join(
        f"<property><name>{key}</name><value>{escape(str(value))}</value></property>\n"
        for key, value in settings.items()
    )
    return f"<configuration>\n{rows}</configuration>\n"


def opened(packages: str, flag: str = "--add-opens") -> list[str]:
    """JVM flags that let the unnamed module into JDK packages, given as `module/package`, separated by blanks."""
    return [argument for package in packages.split() for argument in (flag, f"{package}=ALL-UNNAMED")]


def exchange(port: int, request: bytes, enough: int, timeout: float = 3) -> bytes:
    """Send a request to a loopback port; return what was answered, at least `enough` bytes unless the peer closed."""
    with socket.create_connection((LOOPBACK, port), timeout=timeout) as connection:
        connection.sendall(request)
        answer = b""
        while len(answer) < enough and (part := connection.recv(65536)):
            answer += part
        return answer


def zookeeper_serves(port: int) -> bool:
    """Whether a ZooKeeper answers on this port."""
    return b"Mode:" in exchange(port, b"srvr", enough=1_000_000)
