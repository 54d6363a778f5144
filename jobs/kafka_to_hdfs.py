"""Kafka -> HDFS: lands a topic's new records as rows of its events table.

lode land events
spark-submit ... jobs/kafka_to_hdfs.py events --until 2026-11-03
"""

from pipeline_lib.batches.run import Limits
from pipeline_lib.config import load_config
from pipeline_lib.errors import DataMissing
from pipeline_lib.io.spark import session
from pipeline_lib.job import AsJson, ConfigPath, MaxBytes, MaxRecords, Strict, TopicName, Until, run
from pipeline_lib.landing.run import land_topic
from pipeline_lib.output import print_result
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
    print_result(report.as_dict(), as_json)
    report.check_gaps()
    share = report.rows["quarantined"] / max(1, report.rows.total())
    if share > declared.quality.max_quarantined_share:
        raise DataMissing(f"{topic}: {share:.1%} quarantined, above max_quarantined_share")


if __name__ == "__main__":
    run(main)
