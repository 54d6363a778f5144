"""Kafka, events table, archive and replays -> report: where each record of a topic is.

lode ledger events --since 2026-11-01 --until 2026-11-02
spark-submit ... jobs/ledger.py events --json
"""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_lib.config import load_config
from pipeline_lib.errors import VerificationFailed
from pipeline_lib.io.spark import session, spark_runner
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.ledger.reconcile import totals
from pipeline_lib.ledger.run import read_ledger
from pipeline_lib.ledger.table import print_ledger
from pipeline_lib.output import print_result
from pipeline_lib.timespan import parse_time
from pipeline_lib.topics import load_topic

Since = Annotated[str | None, typer.Option(help="Records of this time on (of the record); default: all.")]
Until = Annotated[str | None, typer.Option(help="Records before this time (exclusive).")]


def main(
    topic: TopicName, since: Since = None, until: Until = None, config: ConfigPath = None, as_json: AsJson = False
) -> None:
    """Reconcile a topic's records, hour by hour: in Kafka, landed, quarantined, archived, twice, late, lost."""
    deployment = load_config(config)
    load_topic(deployment.topics, topic)
    since_ms, until_ms = (int(parse_time(text).timestamp() * 1000) if text else None for text in (since, until))
    name = f"lode ledger {topic}"
    ledger = read_ledger(deployment, topic, since_ms, until_ms, session(name), spark_runner(name))
    if as_json:
        print_result(asdict(ledger) | {"totals": asdict(totals(ledger.rows))}, as_json)
    else:
        print_ledger(ledger)
    if ledger.disagreements:
        raise VerificationFailed(f"{topic}: the stages disagree in {ledger.disagreements} of {len(ledger.rows)} rows")


if __name__ == "__main__":
    run(main)
