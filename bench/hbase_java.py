"""The server's own limit: rows put by the Java client's buffered mutator (bench/java/HBaseLoad.java).

HBase's PerformanceEvaluation is in no published jar of 2.6.1 that runs by itself. The program is compiled as it starts,
by the Janino that Spark brings, since the Java runtime that Lode fetches has no compiler.
"""

import subprocess
from pathlib import Path

import pyspark

from pipeline_lib.config import HBaseCluster
from pipeline_lib.stack.jars import fetch
from pipeline_lib.stack.java import java

SOURCES = Path(__file__).with_name("java")


def load(cluster: HBaseCluster, table: str, family: str, buckets: int, rows: int, columns: int, start_ms: int) -> float:
    """Puts rows with keys as the mapping makes them; the seconds that it took, without Java's start."""
    assert cluster.zookeeper
    compiler = [str(path) for path in (Path(pyspark.__file__).parent / "jars").glob("*.jar")
                if path.name.startswith(("janino", "commons-compiler"))]  # fmt: skip
    class_path = ":".join([*map(str, fetch(["hbase"])["hbase"]), *compiler])
    program = ["org.codehaus.janino.JavaSourceClassLoader", "-sourcepath", str(SOURCES), "HBaseLoad"]
    words = [*cluster.zookeeper.rsplit(":", 1), table, family, *map(str, (buckets, rows, columns, start_ms))]
    done = subprocess.run(
        [str(java()), "-cp", class_path, *program, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"HBaseLoad: {done.stderr[-2000:]}")
    return float(done.stdout)
