"""What is scheduled: the topics and analyses that conf/ declares, and an asset for each dataset that DAGs wait for."""

import tomllib
from pathlib import Path
from typing import Any

from airflow.sdk import Asset

CONF = Path(__file__).parents[1] / "conf"


def _declared(folder: str) -> dict[str, dict[str, Any]]:
    """conf/ is of the same commit as this file, so that reading it here gives one version of a DAG a commit."""
    return {path.stem: tomllib.loads(path.read_text()) for path in sorted((CONF / folder).glob("*.toml"))}


TOPICS = _declared("topics")
SERVED = {name: topic for name, topic in TOPICS.items() if "hbase" in topic}
ANALYSES = _declared("analysis")

LANDED = {name: Asset(name=f"landed.{name}", uri=f"lode://landing/{name}") for name in TOPICS}
ARCHIVED = {name: Asset(name=f"archived.{name}", uri=f"lode://archive/{name}") for name in TOPICS}
RESULTS = {name: Asset(name=f"results.{name}", uri=f"lode://analysis/{name}") for name in ANALYSES}

DATASOURCES = [topic["druid"].get("datasource", name) for name, topic in TOPICS.items() if "druid" in topic] + [
    declared.get("datasource", f"{name}_{table}")
    for name, analysis in ANALYSES.items()
    for table, declared in analysis.get("druid", {}).items()
]
