"""Tables that are split from the start, made by HBase's own RegionSplitter: Thrift 1 makes tables of one region only."""

import subprocess

from pipeline_lib.config import HBaseCluster
from pipeline_lib.errors import ConfigError, ServerUnavailable
from pipeline_lib.stack.jars import fetch
from pipeline_lib.stack.java import java


def create_split_table(cluster: str, settings: HBaseCluster, table: str, family: str, regions: int) -> None:
    """Makes a table of so many regions, split evenly by the first byte of its keys, unless there is one.

    Raises:
        ConfigError: the cluster's ZooKeeper is not known; the text says how to make the table by hand.
        ServerUnavailable: HBase did not make it.
    """
    if not settings.zookeeper:
        splits = ", ".join(f'"\\x{at * 256 // regions:02X}"' for at in range(1, regions))
        raise ConfigError(
            f"HBase {cluster}: table {table} is not there. Set hbase.{cluster}.zookeeper, or make it with: "
            f"create '{table}', {{NAME => '{family}', VERSIONS => 1}}, SPLITS => [{splits}]"
        )
    host, port = settings.zookeeper.rsplit(":", 1)
    class_path = ":".join(map(str, fetch(["hbase"])["hbase"]))
    properties = {"hbase.zookeeper.quorum": host, "hbase.zookeeper.property.clientPort": port}
    options = [part for name, value in properties.items() for part in ("-D", f"{name}={value}")]
    line = [str(java()), "-cp", class_path, "org.apache.hadoop.hbase.util.RegionSplitter", *options, table,
            "UniformSplit", "-c", str(regions), "-f", family]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode and "TableExistsException" not in done.stderr + done.stdout:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ServerUnavailable(f"HBase {cluster}: table {table} was not made: {last}")
