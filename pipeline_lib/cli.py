"""The `lode` command: every job under its verb, and the local stack."""

import typer

from jobs import kafka_to_hdfs, kafka_to_s3
from pipeline_lib.job import run_app, submitted
from pipeline_lib.stack.cli import app as stack_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.command("land")(submitted("land", "kafka_to_hdfs.py", kafka_to_hdfs.main))
app.command("archive")(submitted("archive", "kafka_to_s3.py", kafka_to_s3.main))
app.add_typer(stack_app, name="stack")


def main() -> None:
    run_app(app)
