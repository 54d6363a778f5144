"""The `lode` command: every job under its verb, and the local stack."""

import typer

from jobs import (
    analyze,
    hbase_diff,
    hbase_maintenance,
    hbase_migrate,
    hbase_sync,
    kafka_to_hbase,
    kafka_to_hdfs,
    kafka_to_s3,
    ledger,
    report,
    s3_to_hbase,
    s3_to_kafka,
    vacuum,
    verify_archive,
)
from pipeline_lib import demo
from pipeline_lib.generate import cli as generate
from pipeline_lib.hbase import cli as hbase_commands
from pipeline_lib.job import run_app, submitted
from pipeline_lib.stack.cli import app as stack_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.command("demo")(demo.main)
app.command("generate")(generate.main)
app.command("land")(submitted("land", "kafka_to_hdfs.py", kafka_to_hdfs.main))
app.command("archive")(submitted("archive", "kafka_to_s3.py", kafka_to_s3.main))
app.command("serve")(submitted("serve", "kafka_to_hbase.py", kafka_to_hbase.main))
app.command("analyze")(submitted("analyze", "analyze.py", analyze.main))
app.command("report")(submitted("report", "report.py", report.main))
replay = typer.Typer(no_args_is_help=True, help="Emit archived records of a span again.")
replay.command("kafka")(submitted("replay kafka", "s3_to_kafka.py", s3_to_kafka.main))
replay.command("hbase")(submitted("replay hbase", "s3_to_hbase.py", s3_to_hbase.main))
app.add_typer(replay, name="replay")
hbase = typer.Typer(no_args_is_help=True, help="The two HBase clusters, Prod and Loki.")
hbase.command("status")(hbase_commands.status)
hbase.command("diff")(submitted("hbase diff", "hbase_diff.py", hbase_diff.main))
hbase.command("sync")(submitted("hbase sync", "hbase_sync.py", hbase_sync.main))
hbase.command("maintenance")(submitted("hbase maintenance", "hbase_maintenance.py", hbase_maintenance.main))
hbase.command("migrate")(submitted("hbase migrate", "hbase_migrate.py", hbase_migrate.main))
app.add_typer(hbase, name="hbase")
app.command("results")(hbase_commands.results)
verify = typer.Typer(no_args_is_help=True, help="Compare what is stored with what was recorded about it.")
verify.command("archive")(submitted("verify archive", "verify_archive.py", verify_archive.main))
app.add_typer(verify, name="verify")
app.command("ledger")(submitted("ledger", "ledger.py", ledger.main))
app.command("vacuum")(submitted("vacuum", "vacuum.py", vacuum.main))
app.add_typer(stack_app, name="stack")


def main() -> None:
    run_app(app)
