"""Kafka: broker and controller in one process (KRaft)."""

import base64
import struct
import uuid
from dataclasses import dataclass

from pipeline_lib.stack.server import Launch, Server, Site, conf_folder, exchange, properties

_METADATA, _METADATA_VERSION = 3, 1


@dataclass(frozen=True)
class Kafka(Server):
    """One broker."""

    def prepare(self, site: Site) -> Launch:
        """Format the log directory with a new cluster id the first time."""
        conf = conf_folder(site, self.name, {"server.properties": properties(self._settings(site))})
        file = str(conf / "server.properties")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        return Launch(
            [f"-Dlog4j2.configurationFile={conf / 'log4j2.properties'}", "kafka.Kafka", file],
            [conf, *site.jars["kafka"]],
            ["kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id=" + cluster_id, "-c", file],
        )

    def _settings(self, site: Site) -> dict[str, object]:
        broker, controller = site.address(self.name, "broker"), site.address(self.name, "controller")
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": site.folder(self.name, "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
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
        """The bootstrap server."""
        return {"kafka.bootstrap": site.address(self.name, "broker")}


KAFKA = Kafka("kafka", ("kafka",), ("broker", "controller"), heap_mb=512)
