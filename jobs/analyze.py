"""HDFS -> HDFS: the results of experiments, from landed events; each day is replaced whole.

lode analyze experiments --since 2026-11-01 --until 2026-11-03
spark-submit ... jobs/analyze.py experiments --changed
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline_lib.analysis.declaration import load_analysis
from pipeline_lib.analysis.run import analyze, changed_days, days_of
from pipeline_lib.config import load_config
from pipeline_lib.errors import ConfigError, DataMissing
from pipeline_lib.io.spark import session
from pipeline_lib.job import AsJson, ConfigPath, run
from pipeline_lib.output import print_result
from pipeline_lib.timespan import TimeSpan

Name = Annotated[str, typer.Argument(help="An analysis that conf/analysis declares.")]
Since = Annotated[str | None, typer.Option(help="First day, in the analysis' time zone.")]
UntilDay = Annotated[str | None, typer.Option("--until", help="The day after the last one.")]
Changed = Annotated[bool, typer.Option("--changed", help="The days that landing has touched since the last analysis.")]


def main(
    name: Name,
    since: Since = None,
    until: UntilDay = None,
    changed: Changed = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Compute experiment results of some days from landed events, and replace what was known of these days."""
    deployment = load_config(config)
    analysis = load_analysis(deployment.analyses / f"{name}.toml")
    if changed == bool(since and until):
        raise ConfigError("name the days with --since and --until, or let --changed find them")
    spark = session(f"lode analyze {name}")
    if changed:
        days = changed_days(deployment, name, analysis, datetime.now(UTC).date(), spark)
    else:
        days = days_of(*TimeSpan.parse(str(since), str(until)).whole_days())
    if changed and not days:
        print_result({"days": 0, "note": "nothing to do: landing has touched no analysed day"}, as_json)
        return
    report = analyze(deployment, name, analysis, days, spark)
    print_result(report.as_dict(), as_json)
    if report.not_published:
        clusters = " and ".join(report.not_published)
        raise DataMissing(f"HBase {clusters} did not take the results: run the same line again when it is back")


if __name__ == "__main__":
    run(main)
