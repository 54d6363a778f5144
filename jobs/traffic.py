"""HDFS -> report: how much came of a topic and of each experiment, by the hour, and how much of it was unsound.

lode traffic experiments --since 2026-11-01 --until 2026-11-03
spark-submit ... jobs/traffic.py experiments --since 2026-11-01 --until 2026-11-03 --json
"""

from typing import Annotated

import typer

from pipeline_lib.analysis.declaration import load_analysis
from pipeline_lib.analysis.traffic import DDL, by_hour, of_span, top_experiments
from pipeline_lib.config import load_config
from pipeline_lib.datasets import traffic_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.analysis_tables import AnalysisTable
from pipeline_lib.io.spark import session
from pipeline_lib.job import AsJson, ConfigPath, run
from pipeline_lib.output import print_frame, print_result
from pipeline_lib.timespan import TimeSpan

Name = Annotated[str, typer.Argument(help="An analysis that conf/analysis declares.")]
Since = Annotated[str, typer.Option(help="Events of this time on (inclusive), UTC.")]
Until = Annotated[str, typer.Option(help="Events before this time (exclusive).")]
Top = Annotated[int, typer.Option(min=1, help="How many experiments.")]


def main(
    name: Name, since: Since, until: Until, top: Top = 20, config: ConfigPath = None, as_json: AsJson = False
) -> None:
    """Show the experiments with the most visitors, and each hour's events, visitors and shares of unsound ones."""
    deployment = load_config(config)
    load_analysis(deployment.analyses / f"{name}.toml")
    table = AnalysisTable(session(f"lode traffic {name}"), traffic_path(deployment.hdfs, name), DDL)
    rows = of_span(table.frame(), TimeSpan.parse(since, until))
    found = [[row.asDict() for row in frame.collect()] for frame in (top_experiments(rows, top), by_hour(rows))]
    if not any(found):
        raise ConfigError(f"no traffic of {name} in that span: run `lode analyze {name}` for its days first")
    if as_json:
        print_result({"top": found[0], "hours": found[1]}, as_json)
        return
    print_frame("Top experiments", found[0])
    print_frame("Traffic by hour", found[1])


if __name__ == "__main__":
    run(main)
