"""HDFS: one NameNode, one or more DataNodes."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from pipeline_lib.stack.server import Launch, Server, Site, conf_folder, hadoop_xml, opened

# WebHDFS answers 500 (JAXB) without it.
_FLAGS = opened("java.base/java.lang")


def client_settings(site: Site) -> dict[str, dict[str, object]]:
    """What a program needs to use this file system: its configuration files, by name."""
    datanodes = len(site.nodes("datanode"))
    hdfs: dict[str, object] = {
        # Of the NameNode this decides, too, and for Delta's log it alone. One DataNode keeps the one copy that it can, and
        # the NameNode makes the second as soon as there is another.
        "dfs.replication": 2,
        # With so few, a client that looks for another one on a failure would find none and give up.
        "dfs.client.block.write.replace-datanode-on-failure.policy": "NEVER" if datanodes < 4 else "DEFAULT",
    }
    return {"core-site.xml": {"fs.defaultFS": _url(site)}, "hdfs-site.xml": hdfs}


def _conf(site: Site, name: str) -> Path:
    client = client_settings(site)
    core = client["core-site.xml"] | {"hadoop.tmp.dir": site.folder(name, "tmp")}
    hdfs = client["hdfs-site.xml"] | {
        "dfs.permissions.enabled": "false",
        "dfs.namenode.name.dir": (site.folder("namenode") / "data").as_uri(),
        "dfs.namenode.http-address": site.address("namenode", "web"),
        # A restarted NameNode otherwise stays read-only for 30 s after its last block was reported.
        "dfs.namenode.safemode.extension": 0,
        # Found dead after 2 * 5 s + 10 * 1 s without a heartbeat, not after 10 minutes.
        "dfs.namenode.heartbeat.recheck-interval": 5_000,
        "dfs.heartbeat.interval": 1,
    }
    if name != "namenode":
        hdfs |= {
            "dfs.datanode.data.dir": (site.folder(name) / "data").as_uri(),
            "dfs.datanode.address": site.address(name, "data"),
            "dfs.datanode.http.address": site.address(name, "web"),
            "dfs.datanode.ipc.address": site.address(name, "ipc"),
        }
    folder = conf_folder(site, name, {"core-site.xml": hadoop_xml(core), "hdfs-site.xml": hadoop_xml(hdfs)})
    for webapp in ("hdfs", "datanode"):  # the jars lack them, and the servers refuse to start without
        (folder / "webapps" / webapp).mkdir(parents=True, exist_ok=True)
    return folder


def _url(site: Site) -> str:
    return f"hdfs://{site.address('namenode', 'rpc')}"


def _bean(site: Site, name: str) -> dict[str, Any]:
    web = f"http://{site.address('namenode', 'web')}/jmx"
    answer = requests.get(web, params={"qry": f"Hadoop:service=NameNode,name={name}"}, timeout=3)
    answer.raise_for_status()
    beans: list[dict[str, Any]] = answer.json()["beans"]
    return beans[0] if beans else {}


@dataclass(frozen=True)
class NameNode(Server):
    """Keeps the names; read-only (safe mode) until DataNodes have reported the blocks."""

    def prepare(self, site: Site) -> Launch:
        """Format the first time."""
        conf = _conf(site, self.name)
        main = "org.apache.hadoop.hdfs.server.namenode.NameNode"
        return Launch([*_FLAGS, main], [conf, *site.jars["hdfs"]], [main, "-format", "-force", "-nonInteractive"])

    def ready(self, site: Site) -> bool:
        """It answers; whether files can be written is what the DataNode's `ready` asks."""
        return "FSState" in _bean(site, "FSNamesystemState")

    def endpoints(self, site: Site) -> dict[str, str]:
        """The file system, and its web address (WebHDFS, JMX)."""
        return {"hdfs.url": _url(site), "hdfs.web": f"http://{site.address(self.name, 'web')}"}


@dataclass(frozen=True)
class DataNode(Server):
    """Keeps the blocks."""

    def prepare(self, site: Site) -> Launch:
        """A DataNode formats its own folder."""
        main = "org.apache.hadoop.hdfs.server.datanode.DataNode"
        return Launch([*_FLAGS, main], [_conf(site, self.name), *site.jars["hdfs"]])

    def ready(self, site: Site) -> bool:
        """The NameNode lists it among its live DataNodes and is out of safe mode: files can be written."""
        live = json.loads(_bean(site, "NameNodeInfo").get("LiveNodes", "{}"))
        known = {node["xferaddr"] for node in live.values()}
        if site.address(self.name, "data") not in known or _bean(site, "FSNamesystemState")["FSState"] != "Operational":
            return False
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://{site.address(self.name, 'web')}/jmx", params={"qry": "x"}, timeout=3).ok
        return False


NAMENODE = NameNode("namenode", ("hdfs",), ("rpc", "web"), group="hdfs")
DATANODE = DataNode("datanode", ("hdfs",), ("data", "web", "ipc"), requires=("namenode",), group="hdfs", scales=True)
