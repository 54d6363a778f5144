"""A standalone Spark cluster, from the pip package's own jars: a master and its workers."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests

from pipeline_lib.errors import LodeError
from pipeline_lib.stack.server import LOOPBACK, Launch, Server, Site, conf_folder, opened
from pipeline_lib.stack.spark_java import spark_java_home

_CLASSES = "org.apache.spark.deploy"


def spark_home() -> Path:
    """Where the pip package keeps Spark."""
    found = find_spec("pyspark")
    if found is None or found.origin is None:
        raise LodeError("pyspark is not installed: there is no Spark to start")
    return Path(found.origin).parent


def _launch(site: Site, name: str, arguments: list[str]) -> Launch:
    conf = conf_folder(site, name, {})
    flags = [
        f"-Dlog4j2.configurationFile={conf / 'log4j2.properties'}",
        *opened("java.base/java.lang java.base/sun.nio.ch"),
    ]
    # JAVA_HOME: a worker starts its executors with Spark's own flags, which the trimmed runtime refuses (spark_java.py).
    environment = {
        "JAVA_HOME": str(spark_java_home()),
        "SPARK_HOME": str(spark_home()),
        "SPARK_SCALA_VERSION": "2.13",
        "SPARK_LOCAL_IP": LOOPBACK,
    }
    return Launch([*flags, *arguments], [conf, spark_home() / "jars" / "*"], environment=environment)


def _master(site: Site) -> str:
    return f"spark://{site.address(MASTER.name, 'rpc')}"


def _status(site: Site) -> dict[str, Any]:
    answer = requests.get(f"http://{site.address(MASTER.name, 'web')}/json/", timeout=3)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


@dataclass(frozen=True)
class Master(Server):
    """Hands the workers' cores out to applications."""

    def prepare(self, site: Site) -> Launch:
        """It keeps nothing."""
        ports = ["--port", str(site.port(self.name, "rpc")), "--webui-port", str(site.port(self.name, "web"))]
        return _launch(site, self.name, [f"{_CLASSES}.master.Master", "--host", LOOPBACK, *ports])

    def ready(self, site: Site) -> bool:
        """It says so itself."""
        return bool(_status(site)["status"] == "ALIVE")

    def endpoints(self, site: Site) -> dict[str, str]:
        """What `[spark] master` has to be."""
        return {"spark.master": _master(site)}


@dataclass(frozen=True)
class Worker(Server):
    """Runs executors: two cores and 2 GB each, whatever the machine has."""

    def prepare(self, site: Site) -> Launch:
        """The executors' folders are below its own."""
        ports = ["--port", str(site.port(self.name, "rpc")), "--webui-port", str(site.port(self.name, "web"))]
        share = ["--cores", "2", "--memory", "2g", "--work-dir", str(site.folder(self.name, "work"))]
        arguments = [f"{_CLASSES}.worker.Worker", "--host", LOOPBACK, *ports, *share, _master(site)]
        return _launch(site, self.name, arguments)

    def ready(self, site: Site) -> bool:
        """The master lists it as alive."""
        port = site.port(self.name, "rpc")
        return any(worker["port"] == port and worker["state"] == "ALIVE" for worker in _status(site)["workers"])


MASTER = Master("spark-master", (), ("rpc", "web"), group="standalone", by_default=False)
WORKER = Worker(
    "spark-worker", (), ("rpc", "web"), (MASTER.name,), group="standalone", by_default=False, scales=True, nodes=2
)
