"""The same jobs on a standalone cluster and on YARN leave what they leave on this machine alone, value for value."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment
from faults_common import in_archive, in_kafka

from pipeline_lib.analysis.declaration import load_analysis
from pipeline_lib.analysis.results import DDL
from pipeline_lib.analysis.run import analyze, days_of
from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import Config, load_config
from pipeline_lib.datasets import analysis_path, events_path
from pipeline_lib.hbase.clusters import ensure_table, mapping_of, open_cluster
from pipeline_lib.io.analysis_tables import AnalysisTable
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.s3 import S3
from pipeline_lib.io.spark import Session, spark_runner
from pipeline_lib.landing.run import land_topic
from pipeline_lib.replay.hbase import HBaseSink
from pipeline_lib.replay.kafka import KafkaSink
from pipeline_lib.replay.plan import ReplayRequest
from pipeline_lib.replay.run import execute, plan
from pipeline_lib.stack.s3 import credentials
from pipeline_lib.stack.spark import spark_home
from pipeline_lib.stack.stack import Stack
from pipeline_lib.timespan import TimeSpan
from pipeline_lib.topics import load_topic

# The limit is for a machine that others use as well; the slow part is the start of a driver for each job.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
TOPIC, ANALYSIS = "engines", "experiments"
DAYS = ["--since", "2026-11-01", "--until", "2026-11-03"]
REQUEST = ReplayRequest(TOPIC, TimeSpan.parse("2026-11-01", "2026-11-03"))
_TOPIC = 'name = "engines"\ncodec = "optimizely-event-batch"\n[quality]\nmax_quarantined_share = 0.1\n'

# What runs on the nodes does not inherit what conftest.py sets for this machine's Javas.
PROPERTIES = "[spark.properties]\n" + "".join(
    f'"{where}.JDK_JAVA_OPTIONS" = "{os.environ["JDK_JAVA_OPTIONS"]}"\n'
    for where in ("spark.executorEnv", "spark.yarn.appMasterEnv")
)


@pytest.fixture(scope="module")
def servers(stack: Stack) -> Iterator[Stack]:
    """A cluster of two workers, and HBase Prod."""
    stack.up(["kafka", "hdfs", "s3", "thrift-prod"], also=["standalone"])
    try:
        yield stack
    finally:
        stack.down(["standalone", "yarn"])


def deployed(servers: Stack, folder: Path, engine: str, spark: str, head: str = "") -> Deployment:
    """A deployment of its own on the same source: its datasets, its archive, its HBase table."""
    folder = folder / engine
    (folder / "topics").mkdir(parents=True)
    (folder / "analyses").mkdir()
    own = f'[hbase]\nkey = ["uuid", "experiment_id"]\n[hbase.versions.v1]\ntable = "engines_{engine}"\n'
    (folder / "topics" / f"{TOPIC}.toml").write_text(_TOPIC + own)
    declared = (ROOT / "conf/analysis/experiments.toml").read_text().replace('topic = "events"', f'topic = "{TOPIC}"')
    (folder / "analyses" / f"{ANALYSIS}.toml").write_text(declared)
    path = folder / "lode.toml"
    head = head or f'stack = "{servers.home}"'
    found = servers.endpoints()
    path.write_text(
        f'{head}\ntopics = "{folder / "topics"}"\nanalyses = "{folder / "analyses"}"\n'
        f'[kafka]\nbootstrap_servers = "{found["kafka.bootstrap"]}"\n'
        f'[s3]\nendpoint = "{found["s3.endpoint"]}"\nbucket = "lode-engines"\nprefix = "{engine}/"\n'
        f'[hdfs]\nurl = "{found["hdfs.url"]}"\nroot = "/{engine}"\n'
        f'[hbase.prod]\nthrift = "{found["hbase.prod.thrift"]}"\nzookeeper = "{found["hbase.prod.zookeeper"]}"\n'
        f'[spark]\nexecutor_memory = "600m"\ndriver_memory = "600m"\n{spark}'
    )
    return Deployment(path, load_config(path))


def run(deployment: Deployment) -> dict[str, Any]:
    """Every job once, through `lode`; what each one printed."""

    def lode(*arguments: str) -> Any:
        return deployment.lode(*arguments, "--json", timeout=600)

    found = {"land": lode("land", TOPIC), "archive": lode("archive", TOPIC)}
    digests = {}
    for name, sink in sinks(deployment).items():
        options = ["--to", sink.to] if isinstance(sink, KafkaSink) else ["--cluster", "prod"]
        digests[name] = plan(deployment.config, REQUEST, sink).id
        found[f"replay {name}"] = lode("replay", name, TOPIC, *DAYS, *options, "--execute", digests[name])
    found["analyze"] = lode("analyze", ANALYSIS, *DAYS)
    return {name: json.loads(done.stdout.splitlines()[-1]) for name, done in found.items()} | {"digests": digests}


def run_here(deployment: Deployment, spark: Session) -> dict[str, Any]:
    """The same by the library, on this machine."""
    config, runner = deployment.config, spark_runner("reference")
    topic = load_topic(config.topics, TOPIC)
    found = {
        "land": land_topic(config, topic, Limits(), spark).as_dict(),
        "archive": archive_topic(config, topic, Limits(), runner).as_dict(),
    }
    digests = {}
    for name, sink in sinks(deployment).items():
        digests[name] = plan(config, REQUEST, sink).id
        found[f"replay {name}"] = execute(config, REQUEST, sink, digests[name], skip_corrupt=False)
    analysis = load_analysis(config.analyses / f"{ANALYSIS}.toml")
    days = days_of(REQUEST.span.since.date(), REQUEST.span.until.date())
    found["analyze"] = analyze(config, ANALYSIS, analysis, days, spark).as_dict()
    return found | {"digests": digests}


def sinks(deployment: Deployment) -> dict[str, KafkaSink | HBaseSink]:
    """Where a deployment replays to: a topic and a table of its own, made here: YARN's nodes have no jars of HBase."""
    config, copy = deployment.config, f"{TOPIC}-{deployment.path.parent.name}"
    with Kafka(config.kafka) as kafka:
        if copy not in kafka.topics():
            kafka.create_topic(copy, len(kafka.describe(TOPIC).partitions), {"retention.ms": "-1"})
    mapping = mapping_of(load_topic(config.topics, TOPIC))
    with open_cluster(config, "prod") as prod:
        ensure_table(prod, mapping, mapping.version("v1"))
    runner = spark_runner("replay")
    return {"kafka": KafkaSink(config, runner, copy), "hbase": HBaseSink(config, runner, ("prod",))}


def left_behind(config: Config, spark: Session, engine: str) -> dict[str, Any]:
    """All that the jobs made, in an order that does not depend on who made it."""
    with Kafka(config.kafka) as kafka:
        cluster = kafka.cluster_id()
        copied = in_kafka(kafka, kafka.describe(f"{TOPIC}-{engine}"))
    with open_cluster(config, "prod") as prod:
        rows = dict(prod.scan(f"engines_{engine}"))
    events = spark.read.format("delta").load(events_path(config.hdfs, TOPIC))
    results = AnalysisTable(spark, analysis_path(config.hdfs, ANALYSIS), DDL).read()
    return {
        "events": sorted(str(sorted(row.asDict(recursive=True).items())) for row in events.collect()),
        "archive": {key: table.to_pylist() for key, table in in_archive(config, cluster, TOPIC).items()},
        "copy": {partition: table.drop_columns(["offset"]).to_pylist() for partition, table in copied.items()},
        "rows": rows,
        "results": sorted(str({name: _rounded(value) for name, value in sorted(row.items())}) for row in results),
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.9g}") if isinstance(value, float) else value  # sums of other partitions, in another order


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def reference(servers: Stack, folder: Path, spark: Session) -> dict[str, Any]:
    """The topic, and what the jobs make of it on this machine."""
    deployment = deployed(servers, folder, "local", "")
    S3(deployment.config.s3).create_bucket()
    deployment.lode("generate", TOPIC, "--days", "2", "--visitors-per-day", "150", "--since", "2026-11-01")
    printed = run_here(deployment, spark)
    found = left_behind(deployment.config, spark, "local")
    assert (printed["replay hbase"]["status"], printed["replay hbase"]["missing"]) == ("done", 0)
    assert printed["land"]["events"] == sum("'quality', 'ok'" in row for row in found["events"]) > 500
    assert len(found["results"]) > 50
    assert found["rows"]
    return {"left": found, "printed": printed, "deployment": deployment}


def assert_same(deployment: Deployment, spark: Session, reference: dict[str, Any]) -> None:
    printed = run(deployment)
    found = left_behind(deployment.config, spark, deployment.path.parent.name)
    for name, expected in reference["left"].items():
        assert found[name] == expected, name
    for name in ("land", "archive", "replay kafka", "replay hbase"):
        counts = ("events", "quarantined", "records", "missing", "status")
        assert {k: printed[name].get(k) for k in counts} == {k: reference["printed"][name].get(k) for k in counts}
    assert printed["analyze"]["results"] == reference["printed"]["analyze"]["results"]
    for name, digest in printed["digests"].items():
        assert ledger_entry(deployment, digest) == ledger_entry(
            reference["deployment"], reference["printed"]["digests"][name]
        ), name


def ledger_entry(deployment: Deployment, digest: str) -> dict[str, Any]:
    """The entry of a replay with one name for the deployment's own target, and without that of the run that archived."""
    engine, entry = deployment.path.parent.name, json.dumps(deployment.ledger_entry(digest))
    found = json.loads(entry.replace(f"{TOPIC}-{engine}", "COPY").replace(f"{TOPIC}_{engine}", "TABLE"))
    assert isinstance(found, dict)
    for segment in found["plan"]["segments"]:
        del segment["path"]
    return found


def test_a_standalone_cluster_of_two_workers(
    servers: Stack, folder: Path, spark: Session, reference: dict[str, Any]
) -> None:
    master = servers.endpoints()["spark.master"]
    deployment = deployed(servers, folder, "standalone", f'master = "{master}"\nexecutors = 2\n{PROPERTIES}')
    assert_same(deployment, spark, reference)
    for worker in ("spark-worker", "spark-worker-2"):
        assert list((servers.home / "servers" / worker / "work").glob("app-*")), f"{worker} ran no executor"


def test_the_packed_python_needs_nothing_of_this_environment(servers: Stack, folder: Path) -> None:
    spark = f'package = "{folder / "packed"}"\n'
    deployment = deployed(servers, folder, "packed", spark)
    deployment.lode("package")
    with tarfile.open(folder / "packed" / "lode-python.tar.gz") as archive:
        archive.extractall(folder / "node", filter="fully_trusted")  # its python is a link to the nodes' own
    (folder / "packed" / "lode-python.tar.gz").unlink()
    path = os.pathsep.join(map(str, [folder / "packed" / "lode.zip", *(spark_home() / "python/lib").glob("*.zip")]))
    code = (
        "import sys, jobs.kafka_to_s3, jobs.analyze, pipeline_lib, pyarrow, numba\n"
        "from pipeline_lib.io.kafka import Kafka\n"
        "print(pipeline_lib.__file__, pyarrow.__file__, sys.prefix)"
    )
    python = folder / "node" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", code], env={"PYTHONPATH": path}, cwd=folder / "node", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    library, arrow, prefix = done.stdout.split()
    assert library.startswith(str(folder / "packed" / "lode.zip"))
    assert arrow.startswith(str(folder / "node"))
    assert prefix == str(folder / "node")
    shutil.rmtree(folder / "node")


def test_yarn_in_cluster_mode(servers: Stack, folder: Path, spark: Session, reference: dict[str, Any]) -> None:
    servers.down(["standalone"])  # the memory of one cluster is enough
    found, keys = servers.up(["yarn"]), credentials(servers.home)
    secrets = folder / "secrets.toml"
    secrets.touch(mode=0o600)
    secrets.write_text(f'LODE_S3_ACCESS_KEY = "{keys[0]}"\nLODE_S3_SECRET_KEY = "{keys[1]}"\n')
    deployment = deployed(
        servers,
        folder,
        "yarn",
        f'master = "yarn"\ndeploy_mode = "cluster"\nexecutors = 2\nhadoop_conf = "{found["hadoop.conf"]}"\n'
        f'package = "{folder / "package"}"\npython = "{sys.executable}"\n{PROPERTIES}'
        f'"spark.yarn.jars" = "local:{spark_home()}/jars/*"\n"spark.yarn.report.interval" = "1000"\n'
        '"spark.yarn.appMasterEnv.SPARK_LOCAL_IP" = "127.0.0.1"\n"spark.executorEnv.SPARK_LOCAL_IP" = "127.0.0.1"\n',
        head=f'secrets = "{secrets}"',
    )
    failed = deployment.lode("land", TOPIC, check=2)
    assert "run `lode package`" in failed.stderr
    deployment.lode("package")
    assert_same(deployment, spark, reference)

    # The exit code of the contract comes through, which spark-submit alone would turn into 1.
    refused = deployment.lode("replay", "kafka", TOPIC, *DAYS, "--to", f"{TOPIC}-yarn", "--execute", "0" * 16, check=2)
    assert "now make the plan" in refused.stderr
    assert not list(S3(deployment.config.s3).list("outcomes/"))

    shown = deployment.lode("archive", TOPIC, "--print-command").stdout
    logs = [p for p in (servers.home / "servers" / "nodemanager" / "containers").rglob("*") if p.is_file()]
    assert len(logs) > 10
    for text in (shown, *(log.read_text(errors="replace") for log in logs)):
        assert not [key for key in keys if key in text]
