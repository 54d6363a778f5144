"""Druid: coordinator (with overlord and Derby), broker, historical and indexer, and the ZooKeeper that they meet at.

Its extensions are of other releases than its core, because no single release was published as jars with all of them.
That is for this local stack only.
"""

from dataclasses import dataclass
from pathlib import Path

import requests

from pipeline_lib.stack.server import (
    LOOPBACK,
    Launch,
    Server,
    Site,
    conf_folder,
    opened,
    properties,
    zookeeper_serves,
)

_EXTENSIONS = ("druid-datasketches", "druid-hdfs-storage", "druid-parquet-extensions")
_FLAGS = [
    *opened("java.base/jdk.internal.ref java.base/jdk.internal.misc", "--add-exports"),
    *opened("java.base/java.lang java.base/java.io java.base/java.nio java.base/jdk.internal.ref java.base/sun.nio.ch"),
    *opened("jdk.management/com.sun.management.internal"),
    "-Duser.timezone=UTC",
    "-Djava.util.logging.manager=org.apache.logging.log4j.jul.LogManager",
]


def _common(site: Site) -> dict[str, object]:
    derby = site.port("druid-coordinator", "derby")
    folder = site.folder("druid")
    return {
        "druid.host": LOOPBACK,
        "druid.bindOnHost": "true",
        "druid.zk.service.host": site.address("zookeeper", "client"),
        "druid.extensions.directory": folder / "extensions",
        "druid.extensions.loadList": str([*_EXTENSIONS]).replace("'", '"'),
        "druid.extensions.searchCurrentClassloader": "true",
        "druid.metadata.storage.type": "derby",
        "druid.metadata.storage.connector.connectURI": f"jdbc:derby://{LOOPBACK}:{derby}/{folder}/metadata;create=true",
        "druid.metadata.storage.connector.host": LOOPBACK,
        "druid.metadata.storage.connector.port": derby,
        "druid.storage.type": "local",
        "druid.storage.storageDirectory": folder / "segments",
        "druid.indexer.logs.type": "file",
        "druid.indexer.logs.directory": folder / "task-logs",
        "druid.processing.numThreads": 1,
        "druid.processing.buffer.sizeBytes": "25MiB",
        "druid.processing.numMergeBuffers": 2,
        "druid.server.http.numThreads": 12,
        # The indexer otherwise holds up `down` for 30 s, whether it has requests to finish or not.
        "druid.server.http.gracefulShutdownTimeout": "PT1S",
        "druid.emitter": "noop",
        "druid.lookup.enableLookupSyncOnStartup": "false",
        "druid.selectors.indexing.serviceName": "druid/overlord",
        "druid.selectors.coordinator.serviceName": "druid/coordinator",
        "druid.sql.enable": "true",
    }


def _link_extensions(site: Site) -> None:
    """One folder of links an extension: Druid takes every jar that it finds in one."""
    for name in _EXTENSIONS:
        folder = site.folder("druid", "extensions", name)
        for old in folder.iterdir():
            old.unlink()
        for jar in site.jars[name]:
            (folder / jar.name).symlink_to(jar)


@dataclass(frozen=True)
class ZooKeeper(Server):
    """Druid's meeting point. HBase has its own within the masters."""

    def prepare(self, site: Site) -> Launch:
        """One server, without the admin web page."""
        settings = {
            "dataDir": site.folder(self.name, "data"),
            "clientPort": site.port(self.name, "client"),
            "clientPortAddress": LOOPBACK,
            "admin.enableServer": "false",
            "tickTime": 2000,
            "maxClientCnxns": 0,
        }
        conf = conf_folder(site, self.name, {"zoo.cfg": properties(settings)})
        main = "org.apache.zookeeper.server.ZooKeeperServerMain"
        log_settings = f"-Dlog4j2.configurationFile={conf / 'log4j2.properties'}"
        return Launch([log_settings, main, str(conf / "zoo.cfg")], [conf, *site.jars["druid"]])

    def ready(self, site: Site) -> bool:
        """It answers `srvr`."""
        return zookeeper_serves(site.port(self.name, "client"))

    def endpoints(self, site: Site) -> dict[str, str]:
        """host:port."""
        return {"druid.zookeeper": site.address(self.name, "client")}


@dataclass(frozen=True)
class Druid(Server):
    """One of Druid's services."""

    direct_mb: int = 0
    settings: tuple[tuple[str, object], ...] = ()
    health: str = "/status/health"

    @property
    def service(self) -> str:
        """What Druid calls it."""
        return self.name.removeprefix("druid-")

    def prepare(self, site: Site) -> Launch:
        """Common settings first, then the service's own."""
        _link_extensions(site)
        own = {
            "druid.service": f"druid/{self.service}",
            "druid.plaintextPort": site.port(self.name, "http"),
            "druid.worker.baseTaskDirs": f'["{site.folder(self.name, "tasks")}"]',
            "druid.segmentCache.locations": f'[{{"path":"{self._cache(site)}","maxSize":"10GiB"}}]',
        }
        text = properties(_common(site) | own | dict(self.settings))
        conf = conf_folder(site, self.name, {"runtime.properties": text})
        arguments = [*_FLAGS, f"-Dlog4j2.configurationFile={conf / 'log4j2.properties'}"]
        if self.direct_mb:
            arguments.append(f"-XX:MaxDirectMemorySize={self.direct_mb}m")
        arguments += ["org.apache.druid.cli.Main", "server", self.service]
        return Launch(arguments, [conf, *site.jars["druid"]])

    def _cache(self, site: Site) -> Path:
        return site.folder(self.name, "segment-cache")

    def ready(self, site: Site) -> bool:
        """Its own answer about its health; historical and broker say so only once their segments are known."""
        return requests.get(self._url(site) + self.health, timeout=5).ok

    def endpoints(self, site: Site) -> dict[str, str]:
        """The service's web address. The coordinator's is the overlord's too."""
        return {f"druid.{self.service}": self._url(site)}

    def _url(self, site: Site) -> str:
        return f"http://{site.address(self.name, 'http')}"


@dataclass(frozen=True)
class Indexer(Druid):
    """Runs the tasks, as threads."""

    def ready(self, site: Site) -> bool:
        """The overlord lists it among its workers: only then do tasks start."""
        overlord = f"http://{site.address('druid-coordinator', 'http')}/druid/indexer/v1/workers"
        workers = requests.get(overlord, timeout=5)
        listed = [worker["worker"]["host"] for worker in workers.json()] if workers.ok else []
        return super().ready(site) and site.address(self.name, "http") in listed


def _service(kind: type[Druid], role: str, **more: object) -> Druid:
    requires = ("zookeeper", "druid-coordinator") if role == "indexer" else ("zookeeper",)
    sets = ("druid", *_EXTENSIONS)
    return kind(f"druid-{role}", sets, ("http",), requires=requires, group="druid", **more)  # type: ignore[arg-type]


ZOOKEEPER = ZooKeeper("zookeeper", ("druid",), ("client",), group="druid", heap_mb=128)
COORDINATOR = Druid(
    "druid-coordinator",
    ("druid", *_EXTENSIONS),
    ("http", "derby"),
    requires=("zookeeper",),
    group="druid",
    heap_mb=384,
    health="/druid/coordinator/v1/isLeader",
    settings=(
        ("druid.coordinator.asOverlord.enabled", "true"),
        ("druid.coordinator.asOverlord.overlordService", "druid/overlord"),
        ("druid.indexer.runner.type", "httpRemote"),
        ("druid.indexer.storage.type", "metadata"),
        # What is ingested is to be queryable within seconds: the defaults are made for days of segments.
        ("druid.coordinator.period", "PT1S"),
        ("druid.coordinator.startDelay", "PT1S"),
        ("druid.manager.segments.pollDuration", "PT1S"),
        ("druid.indexer.queue.startDelay", "PT1S"),
    ),
)
BROKER = _service(Druid, "broker", heap_mb=384, direct_mb=256, health="/druid/broker/v1/readiness")
HISTORICAL = _service(Druid, "historical", heap_mb=384, direct_mb=256, health="/druid/historical/v1/readiness")
INDEXER = _service(Indexer, "indexer", heap_mb=1024, direct_mb=512, settings=(("druid.worker.capacity", 3),))
