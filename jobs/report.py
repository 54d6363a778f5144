"""HDFS -> files: HTML pages of an analysis' results, one an experiment and an index.

lode report experiments --out report
"""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.analysis.declaration import load_analysis
from pipeline_lib.analysis.results import DDL
from pipeline_lib.analysis.traffic import DDL as TRAFFIC_DDL
from pipeline_lib.analysis.traffic import by_hour, last_days
from pipeline_lib.config import load_config
from pipeline_lib.datasets import analysis_path, traffic_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.analysis_tables import AnalysisTable
from pipeline_lib.io.spark import session
from pipeline_lib.job import AsJson, ConfigPath, run
from pipeline_lib.output import print_result
from pipeline_lib.report.pages import pages

Name = Annotated[str, typer.Argument(help="An analysis that conf/analysis declares.")]
Out = Annotated[Path, typer.Option(help="Folder of the pages; those that it has are replaced.")]


def main(name: Name, out: Out = Path("report"), config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Write an HTML page for each experiment of an analysis, and an index; each page is a file that stands alone."""
    deployment = load_config(config)
    analysis = load_analysis(deployment.analyses / f"{name}.toml")
    spark = session(f"lode report {name}")
    rows = AnalysisTable(spark, analysis_path(deployment.hdfs, name), DDL).read()
    if not rows:
        raise ConfigError(f"there is no result of {name} yet: run `lode analyze {name}` first")
    out.mkdir(parents=True, exist_ok=True)
    visits = AnalysisTable(spark, traffic_path(deployment.hdfs, name), TRAFFIC_DDL).frame()
    hours = [row.asDict() for row in by_hour(last_days(visits, 14)).collect()]
    files = pages(rows, hours, name, analysis)
    for file, text in files.items():
        whole = out / f".{file}.new"
        whole.write_text(text)
        whole.replace(out / file)  # a reader never sees half a page
    print_result({"pages": len(files), "index": str(out / "index.html")}, as_json)


if __name__ == "__main__":
    run(main)
