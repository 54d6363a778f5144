"""S3 archive -> report: reads the archive again and compares it with its commits and with Kafka.

lode verify archive events --sample 0.1
spark-submit ... jobs/verify_archive.py events
"""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_lib.archive.verify_run import verify_archive
from pipeline_lib.config import load_config
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.output import print_result, print_rows
from pipeline_lib.topics import load_topic

Sample = Annotated[float, typer.Option(min=0, max=1, help="Share of the segments to read; listed are always all.")]


def main(topic: TopicName, sample: Sample = 1.0, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Verify a topic's archive: commits, objects, bytes, records, and Kafka as far as it still has them."""
    deployment = load_config(config)
    load_topic(deployment.topics, topic)
    report = verify_archive(deployment, topic, sample, spark_runner(f"lode verify archive {topic}"))
    values = asdict(report)
    if as_json:
        print_result(values, as_json)
    else:
        notes = "; ".join(report.notes)
        print_result(values | {"problems": len(report.problems), "notes": notes}, as_json)
        print_rows("Problems", ["segment", "problem"], [[p.where, p.problem] for p in report.problems])
    if report.problems:
        raise VerificationFailed(f"{topic}: {len(report.problems)} problems in the archive")


if __name__ == "__main__":
    run(main)
