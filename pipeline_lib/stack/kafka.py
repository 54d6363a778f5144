"""Kafka: nodes that are broker and controller in one process (KRaft). A new node joins the quorum by itself."""

import base64
import struct
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pipeline_lib.stack.server import Launch, Server, Site, conf_folder, exchange, properties

_METADATA, _METADATA_VERSION = 3, 1


@dataclass(frozen=True)
class Kafka(Server):
    """One node."""

    def numbered(self, node: int) -> Self:
        """A further node joins the cluster that the first one has begun."""
        made = super().numbered(node)
        return made if node == 1 else replace(made, requires=(self.name,))

    def prepare(self, site: Site) -> Launch:
        """Format the log directory the first time: the first node with a new cluster id, the others with that one."""
        conf = conf_folder(site, self.name, {"server.properties": properties(self._settings(site))})
        file = str(conf / "server.properties")
        first = not self.role
        cluster_id = _new_cluster_id() if first else _cluster_id(site.folder(self.role, "data"))
        begin = "--standalone" if first else "--no-initial-controllers"
        return Launch(
            [f"-Dlog4j2.configurationFile={conf / 'log4j2.properties'}", "kafka.Kafka", file],
            [conf, *site.jars["kafka"]],
            [
                "kafka.tools.StorageTool",
                "format",
                begin,
                "--ignore-formatted",
                f"--cluster-id={cluster_id}",
                "-c",
                file,
            ],
        )

    def _settings(self, site: Site) -> dict[str, object]:
        broker, controller = site.address(self.name, "broker"), site.address(self.name, "controller")
        nodes = site.nodes(KAFKA.name)
        # With three, one may be down and writes still have two copies.
        replicas, in_sync = min(3, len(nodes)), 2 if len(nodes) > 2 else 1
        return {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "controller.quorum.bootstrap.servers": ",".join(site.address(node, "controller") for node in nodes),
            "controller.quorum.auto.join.enable": "true",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": site.folder(self.name, "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            "group.initial.rebalance.delay.ms": 0,
            # Tests of retention and compaction wait for these: minutes by default.
            "log.retention.check.interval.ms": 10_000,
            "log.cleaner.backoff.ms": 1_000,
        }

    def ready(self, site: Site) -> bool:
        """The broker lists itself: only a broker that its controller has unfenced is listed."""
        body = struct.pack(">hhihi", _METADATA, _METADATA_VERSION, 1, -1, 0)
        answer = exchange(site.port(self.name, "broker"), struct.pack(">i", len(body)) + body, enough=12)
        return len(answer) >= 12 and struct.unpack(">i", answer[8:12])[0] > 0

    def endpoints(self, site: Site) -> dict[str, str]:
        """The bootstrap servers: every node, so that any one may be down."""
        return {"kafka.bootstrap": ",".join(site.address(node, "broker") for node in site.nodes(KAFKA.name))}


def _new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _cluster_id(data: Path) -> str:
    """The id in a node's formatted folder."""
    lines = (data / "meta.properties").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))


KAFKA = Kafka("kafka", ("kafka",), ("broker", "controller"), heap_mb=512, scales=True)
