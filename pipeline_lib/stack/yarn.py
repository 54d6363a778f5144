"""YARN: a ResourceManager and its NodeManagers, on the stack's HDFS."""

from dataclasses import dataclass
from pathlib import Path

import requests

from pipeline_lib.stack.hdfs import client_settings
from pipeline_lib.stack.server import LOOPBACK, Launch, Server, Site, conf_folder, hadoop_xml, opened
from pipeline_lib.stack.spark_java import spark_java_home

_FLAGS = [*opened("java.base/java.lang"), *opened("java.base/sun.net.dns", "--add-exports")]
_PORTS = {"address": "rpc", "scheduler.address": "scheduler", "resource-tracker.address": "tracker",
          "admin.address": "admin", "webapp.address": "web"}  # fmt: skip
_QUEUES = {
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.capacity.root.default.capacity": 100,
    # Applications in cluster mode: half of the memory may be drivers'.
    "yarn.scheduler.capacity.maximum-am-resource-percent": 0.5,
}


def _addresses(site: Site) -> dict[str, object]:
    names = {f"yarn.resourcemanager.{key}": site.address(RESOURCEMANAGER.name, port) for key, port in _PORTS.items()}
    return {"yarn.resourcemanager.hostname": LOOPBACK, **names}


def _conf(site: Site, name: str, own: dict[str, object]) -> Path:
    settings: dict[str, dict[str, object]] = {
        **client_settings(site),
        "yarn-site.xml": _addresses(site) | own,
        "capacity-scheduler.xml": dict(_QUEUES),
    }
    return conf_folder(site, name, {file: hadoop_xml(values) for file, values in settings.items()})


def _client_conf(site: Site) -> Path:
    """The configuration of a program that submits applications, without the servers' own settings."""
    folder = site.folder(RESOURCEMANAGER.name, "client")
    for file, values in {**client_settings(site), "yarn-site.xml": _addresses(site)}.items():
        (folder / file).write_text(hadoop_xml(values))
    return folder


@dataclass(frozen=True)
class ResourceManager(Server):
    """Gives applications containers on the nodes."""

    def prepare(self, site: Site) -> Launch:
        """It keeps nothing: applications end with it."""
        _client_conf(site)
        own: dict[str, object] = {
            "yarn.resourcemanager.bind-host": LOOPBACK,
            "yarn.scheduler.minimum-allocation-mb": 256,
            # A dead node is given up after this, not after 10 minutes.
            "yarn.nm.liveness-monitor.expiry-interval-ms": 20_000,
        }
        main = "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager"
        return Launch([*_FLAGS, main], [_conf(site, self.name, own), *site.jars["yarn"]])

    def ready(self, site: Site) -> bool:
        """It says that it has started."""
        answer = requests.get(f"{self._url(site)}/ws/v1/cluster/info", timeout=3)
        return answer.ok and answer.json()["clusterInfo"]["state"] == "STARTED"

    def endpoints(self, site: Site) -> dict[str, str]:
        """Its web address, and the folder that HADOOP_CONF_DIR has to name."""
        return {"yarn.web": self._url(site), "hadoop.conf": str(site.folder(self.name, "client"))}

    def _url(self, site: Site) -> str:
        return f"http://{site.address(self.name, 'web')}"


@dataclass(frozen=True)
class NodeManager(Server):
    """Runs containers: 4 GB and four of them at once, whatever the machine has."""

    def prepare(self, site: Site) -> Launch:
        """A new node needs its own ports and folders, and the ResourceManager's address."""
        own: dict[str, object] = {
            "yarn.nodemanager.bind-host": LOOPBACK,
            "yarn.nodemanager.hostname": LOOPBACK,
            "yarn.nodemanager.address": site.address(self.name, "rpc"),
            "yarn.nodemanager.localizer.address": site.address(self.name, "localizer"),
            "yarn.nodemanager.webapp.address": site.address(self.name, "web"),
            "yarn.nodemanager.local-dirs": site.folder(self.name, "local"),
            "yarn.nodemanager.log-dirs": site.folder(self.name, "containers"),
            "yarn.nodemanager.resource.memory-mb": 4096,
            "yarn.nodemanager.resource.cpu-vcores": 4,
            # Virtual memory is what a JVM reserves, not what it uses.
            "yarn.nodemanager.vmem-check-enabled": "false",
            "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99,
        }
        main = "org.apache.hadoop.yarn.server.nodemanager.NodeManager"
        # The containers' Java: see spark_java.py.
        environment = {"JAVA_HOME": str(spark_java_home())}
        return Launch([*_FLAGS, main], [_conf(site, self.name, own), *site.jars["yarn"]], environment=environment)

    def ready(self, site: Site) -> bool:
        """The ResourceManager lists it as running."""
        web = f"http://{site.address(RESOURCEMANAGER.name, 'web')}/ws/v1/cluster/nodes"
        answer = requests.get(web, params={"states": "RUNNING"}, timeout=3)
        nodes = (answer.json()["nodes"] or {}).get("node", []) if answer.ok else []
        port = site.port(self.name, "rpc")  # the name before it is the one that the system has for the address
        return any(node["id"].endswith(f":{port}") for node in nodes)


RESOURCEMANAGER = ResourceManager(
    "resourcemanager", ("yarn",), tuple(_PORTS.values()), ("namenode",), group="yarn", by_default=False
)
NODEMANAGER = NodeManager(
    "nodemanager", ("yarn",), ("rpc", "localizer", "web"), (RESOURCEMANAGER.name, "datanode"), group="yarn",
    by_default=False, scales=True,
)  # fmt: skip
