"""HBase, twice: Prod and Loki, each a standalone master (ZooKeeper and region server within) and a Thrift server."""

import struct
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.stack.server import (
    LOOPBACK,
    Launch,
    Server,
    Site,
    conf_folder,
    exchange,
    hadoop_xml,
    opened,
    zookeeper_serves,
)

_FLAGS = [
    *opened(
        "java.base/java.lang java.base/java.lang.reflect java.base/java.nio java.base/java.io java.base/java.util"
        " java.base/java.util.concurrent java.base/sun.nio.ch java.base/jdk.internal.ref"
    ),
    *opened("java.base/jdk.internal.misc java.security.jgss/sun.security.krb5", "--add-exports"),
]
_VERSION_1_CALL, _REPLY, _STOP, _LIST = 0x80010001, 2, b"\x00", 15


def _conf(site: Site, name: str, master: str) -> Path:
    settings = {
        "hbase.rootdir": (site.folder(master) / "data").as_uri(),
        "hbase.tmp.dir": site.folder(name, "tmp"),
        "hbase.zookeeper.quorum": LOOPBACK,
        "hbase.zookeeper.property.clientPort": site.port(master, "zookeeper"),
        "hbase.zookeeper.property.dataDir": site.folder(master) / "zookeeper",
        # A folder has no hsync to ask for, and the asynchronous WAL wants HDFS.
        "hbase.unsafe.stream.capability.enforce": "false",
        "hbase.wal.provider": "filesystem",
        "hbase.localcluster.port.ephemeral": "false",
        "hbase.master.hostname": LOOPBACK,
        "hbase.regionserver.hostname": LOOPBACK,
        "hbase.master.ipc.address": LOOPBACK,
        "hbase.regionserver.ipc.address": LOOPBACK,
        "hbase.master.port": site.port(master, "master"),
        "hbase.regionserver.port": site.port(master, "region"),
        "hbase.master.info.port": -1,
        "hbase.regionserver.info.port": -1,
        "hbase.thrift.info.port": -1,
        # The region server stops after the ZooKeeper within the same process, and then retries to sign off for 20 s.
        "zookeeper.recovery.retry": 0,
        # A client that is idle for a minute would otherwise be cut off in the middle of a long load.
        "hbase.thrift.server.socket.read.timeout": 600_000,
    }
    return conf_folder(site, name, {"hbase-site.xml": hadoop_xml(settings)})


@dataclass(frozen=True)
class Master(Server):
    """ZooKeeper, master and region server in one process, on a folder."""

    def prepare(self, site: Site) -> Launch:
        """HBase formats its own folder."""
        conf = _conf(site, self.name, self.name)
        arguments = [*_FLAGS, "org.apache.hadoop.hbase.master.HMaster", "start"]
        return Launch(arguments, [conf, *site.jars["hbase"]])

    def ready(self, site: Site) -> bool:
        """ZooKeeper serves, and master and region server listen; that tables can be used is asked through Thrift."""
        for port in ("master", "region"):
            exchange(site.port(self.name, port), b"", enough=0)
        return zookeeper_serves(site.port(self.name, "zookeeper"))

    def endpoints(self, site: Site) -> dict[str, str]:
        """The ZooKeeper quorum, for HBase's own clients."""
        return {f"hbase.{self.name.removeprefix('hbase-')}.zookeeper": site.address(self.name, "zookeeper")}


@dataclass(frozen=True)
class Thrift(Server):
    """The Thrift 1 gateway of one of the clusters."""

    def prepare(self, site: Site) -> Launch:
        """It finds its cluster through ZooKeeper."""
        arguments = [*_FLAGS, "org.apache.hadoop.hbase.thrift.ThriftServer", "start"]
        arguments += ["-p", str(site.port(self.name, "thrift")), "-b", LOOPBACK]
        return Launch(arguments, [_conf(site, self.name, self.requires[0]), *site.jars["hbase"]])

    def ready(self, site: Site) -> bool:
        """getTableNames returns a list, which it does once the master has finished its initialization."""
        call = struct.pack(">Ii13si", _VERSION_1_CALL, 13, b"getTableNames", 1) + _STOP
        answer = exchange(site.port(self.name, "thrift"), call, enough=28, timeout=5)
        if len(answer) < 28 or answer[3] != _REPLY:
            return False
        # The answer's first field: 0 is the result, 1 an IOError.
        return answer[25:28] == struct.pack(">bh", _LIST, 0)

    def endpoints(self, site: Site) -> dict[str, str]:
        """host:port for happybase."""
        return {f"hbase.{self.name.removeprefix('thrift-')}.thrift": site.address(self.name, "thrift")}


def _cluster(name: str) -> tuple[Server, Server]:
    master = Master(f"hbase-{name}", ("hbase",), ("zookeeper", "master", "region"), group="hbase", heap_mb=512)
    return master, Thrift(f"thrift-{name}", ("hbase",), ("thrift",), requires=(master.name,), group="hbase")


PROD, THRIFT_PROD = _cluster("prod")
LOKI, THRIFT_LOKI = _cluster("loki")
