"""The `lode` command: every job under its verb, and the local stack."""

from functools import partial

from pipeline_lib.commands import command, commands, group, job
from pipeline_lib.job import run_app

HBASE = "pipeline_lib.hbase.cli"
REPLAY = {"kafka": job("replay kafka", "s3_to_kafka"), "hbase": job("replay hbase", "s3_to_hbase")}
HBASE_COMMANDS = {
    "status": command(HBASE, "status"),
    "diff": job("hbase diff", "hbase_diff"),
    "sync": job("hbase sync", "hbase_sync"),
    "maintenance": job("hbase maintenance", "hbase_maintenance"),
    "migrate": job("hbase migrate", "hbase_migrate"),
}
DRUID = "pipeline_lib.druid.cli"
INGEST = {"druid": command("jobs.hdfs_to_druid"), "rollback": command(DRUID, "rollback")}
DRUID_COMMANDS = {name: command(DRUID, name) for name in ("status", "compact", "rules")}
VERIFY = {"archive": job("verify archive", "verify_archive")}

app = group(
    "Batch and replay: every job under its verb, and the local stack.",
    {
        "demo": command("pipeline_lib.demo"),
        "package": command("pipeline_lib.package"),
        "generate": command("pipeline_lib.generate.cli"),
        "land": job("land", "kafka_to_hdfs"),
        "archive": job("archive", "kafka_to_s3"),
        "serve": job("serve", "kafka_to_hbase"),
        "analyze": job("analyze", "analyze"),
        "traffic": job("traffic", "traffic"),
        "report": job("report", "report"),
        "results": command(HBASE, "results"),
        "replay": group("Emit archived records of a span again.", REPLAY),
        "hbase": group("The two HBase clusters, Prod and Loki.", HBASE_COMMANDS),
        "ingest": group("Druid: load what was landed or analysed, prove it, take it back.", INGEST),
        "druid": group("The datasources in Druid.", DRUID_COMMANDS),
        "query": command("pipeline_lib.druid.query"),
        "verify": group("Compare what is stored with what was recorded about it.", VERIFY),
        "ledger": job("ledger", "ledger"),
        "compact": job("compact", "compact"),
        "expire": job("expire", "expire"),
        "vacuum": job("vacuum", "vacuum"),
        "stack": commands("pipeline_lib.stack.cli"),
        "airflow": commands("pipeline_lib.airflow.cli"),
    },
)


def main() -> None:
    run_app(partial(app, prog_name="lode"))
