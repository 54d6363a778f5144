"""Write jars.lock again (developers only: needs `mvn` on the PATH; the product reads the result and needs no Maven).

    python -m pipeline_lib.stack.lock_jars [SET ...]

Maven resolves every set below at runtime scope; jars.lock then names each jar and the sha256 of its bytes. The same
jars are afterwards in Maven's local repository, so `LODE_JARS_URL=file://$HOME/.m2/repository lode stack up` fills
Lode's cache without downloading them a second time.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LOCK = Path(__file__).with_name("jars.lock")


@dataclass(frozen=True)
class Spec:
    """What Maven is asked for. `exact` takes the named jars alone, without what they depend on."""

    wanted: tuple[str, ...]
    without: tuple[str, ...] = ()
    exact: bool = False
    unless_in_pyspark: bool = False


_HADOOP_CLIENT = (
    "org.apache.hadoop:hadoop-client-api:3.3.6",
    "org.apache.hadoop:hadoop-client-runtime:3.3.6",
    "commons-logging:commons-logging:1.1.3",
)

SPECS: dict[str, Spec] = {
    # Kafka's own artifact leaves the binding of its logger to the distribution: without it, errors go nowhere.
    "kafka": Spec(("org.apache.kafka:kafka_2.13:4.4.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5")),
    "hdfs": Spec(
        (
            "org.apache.hadoop:hadoop-hdfs:3.5.0",
            "org.apache.hadoop:hadoop-common:3.5.0",
            "org.apache.hadoop:hadoop-hdfs-client:3.5.0",
        )
    ),
    "yarn": Spec(
        tuple(
            f"org.apache.hadoop:{name}:3.5.0"
            for name in (
                "hadoop-yarn-server-resourcemanager",
                "hadoop-yarn-server-nodemanager",
                "hadoop-yarn-server-timelineservice",
                "hadoop-yarn-client",
                "hadoop-common",
                "hadoop-hdfs-client",
            )
        )
    ),
    "hbase": Spec(
        (
            "org.apache.hbase:hbase-server:2.6.1",
            "org.apache.hbase:hbase-thrift:2.6.1",
            "org.apache.hbase:hbase-zookeeper:2.6.1",
            "org.apache.hbase:hbase-mapreduce:2.6.1",
        )
    ),
    # jackson-annotations: without 2.21 S3Proxy ends with NoClassDefFoundError.
    "s3": Spec(("org.gaul:s3proxy:4.1.0", "com.fasterxml.jackson.core:jackson-annotations:2.21")),
    # sigar is in no public repository any more, and nothing needs it.
    "druid": Spec(("org.apache.druid:druid-services:33.0.0",), without=("org.hyperic:sigar",)),
    # Extensions: only what the core lacks. Releases are mixed because these are the newest that were published as jars.
    "druid-datasketches": Spec(
        ("org.apache.druid.extensions:druid-datasketches:33.0.0", "org.apache.commons:commons-math3:3.6.1"), exact=True
    ),
    "druid-hdfs-storage": Spec(
        (
            "org.apache.druid.extensions:druid-hdfs-storage:29.0.0",
            *_HADOOP_CLIENT,
            "org.xerial.snappy:snappy-java:1.1.10.5",
        ),
        exact=True,
    ),
    "druid-parquet-extensions": Spec(
        (
            "org.apache.druid.extensions:druid-parquet-extensions:0.20.0",
            *(
                f"org.apache.parquet:parquet-{part}:1.11.0"
                for part in ("avro", "column", "common", "encoding", "hadoop", "jackson")
            ),
            "org.apache.parquet:parquet-format-structures:1.11.0",
            "org.apache.yetus:audience-annotations:0.11.0",
            "org.apache.avro:avro:1.9.2",
            "org.codehaus.jackson:jackson-core-asl:1.9.13",
            "org.codehaus.jackson:jackson-mapper-asl:1.9.13",
            *_HADOOP_CLIENT,
            "org.xerial.snappy:snappy-java:1.1.7.3",
        ),
        exact=True,
    ),
    "spark": Spec(("io.delta:delta-spark_4.2_2.13:4.4.0", "io.delta:delta-storage:4.4.0"), unless_in_pyspark=True),
    "spark-kafka": Spec(("org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0",), unless_in_pyspark=True),
}


def main() -> None:
    """Resolve the sets named as arguments, or every set, and write the lock."""
    only = sys.argv[1:] or list(SPECS)
    kept: dict[str, dict[str, str]] = json.loads(LOCK.read_text()) if LOCK.exists() else {}
    locked: dict[str, dict[str, str]] = {}
    for name, spec in SPECS.items():
        locked[name] = resolve(spec) if name in only else kept[name]
        print(f"{name}: {len(locked[name])} jars", file=sys.stderr)
    LOCK.write_text(json.dumps(locked, indent=1) + "\n")


def resolve(spec: Spec) -> dict[str, str]:
    """Coordinate -> sha256 of every jar that `spec` comes to."""
    with tempfile.TemporaryDirectory() as folder:
        pom, listing = Path(folder) / "pom.xml", Path(folder) / "classpath"
        pom.write_text(_pom(spec))
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath"
        subprocess.run(
            ["mvn", "-q", "-B", "-f", str(pom), goal, "-DincludeScope=runtime", f"-Dmdep.outputFile={listing}"],
            check=True,
        )
        paths = [Path(path) for path in listing.read_text().strip().split(":")]
    shipped = _shipped_with_pyspark() if spec.unless_in_pyspark else frozenset()
    jars = {_coordinate(path): path for path in paths if path.parts[-3] not in shipped}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in jars.items()}


def _coordinate(path: Path) -> str:
    """Maven's local repository keeps GROUP/AS/FOLDERS/ARTIFACT/VERSION/ARTIFACT-VERSION[-CLASSIFIER].jar."""
    parts = path.parts
    artifact, version = parts[-3], parts[-2]
    group = ".".join(parts[parts.index("repository") + 1 : -3])
    classifier = path.stem.removeprefix(f"{artifact}-{version}").removeprefix("-")
    return ":".join(filter(None, (group, artifact, version, classifier)))


def _shipped_with_pyspark() -> frozenset[str]:
    found = find_spec("pyspark")
    if found is None or found.origin is None:
        raise SystemExit("pyspark is not installed: cannot tell which jars it ships")
    names = (jar.stem for jar in (Path(found.origin).parent / "jars").glob("*.jar"))
    return frozenset(re.sub(r"-\d[\w.\-]*$", "", name) for name in names)


def _pom(spec: Spec) -> str:
    excluded: Iterable[str] = ("*:*",) if spec.exact else spec.without
    exclusions = "".join(
        f"<exclusion><groupId>{group}</groupId><artifactId>{artifact}</artifactId></exclusion>"
        for group, artifact in (name.split(":") for name in excluded)
    )
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        f"<exclusions>{exclusions}</exclusions></dependency>"
        for group, artifact, version in (name.split(":") for name in spec.wanted)
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>lode</groupId><artifactId>jars</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )


if __name__ == "__main__":
    main()
