"""Kafka -> HBase: serves a topic's new events as rows to both clusters.

lode serve events
spark-submit ... jobs/kafka_to_hbase.py events --until 2026-11-03
"""

from pipeline_lib.batches.run import Limits
from pipeline_lib.config import load_config
from pipeline_lib.errors import DataMissing
from pipeline_lib.hbase.serve import serve_topic
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, MaxBytes, MaxRecords, Strict, TopicName, Until, run
from pipeline_lib.output import print_result, print_rows
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
    """Serve a topic's new events to HBase, to Prod and Loki alike; one that is away catches up with a later run."""
    deployment = load_config(config)
    limits = Limits(parse_time(until) if until else None, max_records, max_bytes, strict)
    reports = serve_topic(deployment, load_topic(deployment.topics, topic), limits, spark_runner(f"lode serve {topic}"))
    if as_json:
        print_result({report.cluster: report.as_dict() for report in reports}, as_json)
    else:
        names = ["cluster", "version", "batches", "rows", "quarantined", "refused", "gaps"]
        made = [(r.cluster, version, one.as_dict()) for r in reports for version, one in r.versions.items()]
        found = [[cluster, version, *(str(values[name]) for name in names[2:])] for cluster, version, values in made]
        print_rows(f"Served {topic}", names, found, right=names[2:6])
    for report in reports:
        for one in report.versions.values():
            one.check_gaps()
    if away := "; ".join(f"{report.cluster}: {report.away}" for report in reports if report.away):
        raise DataMissing(f"{topic}: not served to {away}. It catches up by itself: run again when it is back")
    if refused := sum(one.rows["refused"] for report in reports for one in report.versions.values()):
        raise DataMissing(
            f"{topic}: {refused} rows have a cell that is too large for HBase (event=row_too_large names them)"
        )


if __name__ == "__main__":
    run(main)
