"""Kafka -> HDFS: lands a topic's new records as rows of its events table.

lode land events
spark-submit ... jobs/kafka_to_hdfs.py events --until 2026-11-03
"""

from pipeline_lib.batches import Limits
from pipeline_lib.config import load_config
from pipeline_lib.errors import DataMissing
from pipeline_lib.io.spark import session
from pipeline_lib.job import (
    AsJson,
    ConfigPath,
    MaxBytes,
    MaxRecords,
    Strict,
    TopicName,
    Until,
    gap_text,
    print_result,
    run,
)
from pipeline_lib.landing_run import land_topic
from pipeline_lib.timespan import parse_time
from pipeline_lib.topics import load_topic


def main(
    topic: TopicName,
    until: Until = None,
    max_records: MaxRecords = None,
    max_bytes: MaxBytes = None,
    strict: Strict = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Land a topic's new records on HDFS: decoded events, and what could not be decoded with its reason."""
    deployment = load_config(config)
    declared = load_topic(deployment.topics, topic)
    limits = Limits(parse_time(until) if until else None, max_records, max_bytes, strict)
    report = land_topic(deployment, declared, limits, session(f"lode land {topic}"))
    print_result(vars(report) | {"gaps": gap_text(report.gaps)}, as_json)
    rows = report.events + report.quarantined
    share = report.quarantined / rows if rows else 0.0
    if report.gaps:
        raise DataMissing(f"{topic}: Kafka no longer had offsets of {gap_text(report.gaps)}")
    if share > declared.quality.max_quarantined_share:
        raise DataMissing(f"{topic}: {share:.1%} quarantined, above max_quarantined_share")


if __name__ == "__main__":
    run(main)
