"""HBase: takes one cluster out for routine work, and back once it is equal to the other.

lode hbase maintenance loki on
lode hbase maintenance loki off
"""

from typing import Annotated, Literal

import typer

from pipeline_lib.config import load_config
from pipeline_lib.hbase.clusters import Cluster
from pipeline_lib.hbase.maintenance import begin, end
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, run
from pipeline_lib.output import print_result
from pipeline_lib.topics import load_topics

Name = Annotated[Cluster, typer.Argument(help="The cluster.")]
Switch = Annotated[Literal["on", "off"], typer.Argument(help="off: serve what it missed, compare, then read it again.")]


def main(cluster: Name, switch: Switch, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Take a cluster out of serving and reading, or back: readers are pointed at the other one meanwhile."""
    deployment = load_config(config)
    if switch == "on":
        begin(deployment, cluster)
        print_result({"cluster": cluster, "maintenance": "on"}, as_json)
        return
    topics = [topic for topic in load_topics(deployment.topics) if topic.hbase]
    compared = end(deployment, topics, cluster, spark_runner(f"lode hbase maintenance {cluster}"))
    print_result({"cluster": cluster, "maintenance": "off", "topics": len(topics), "rows compared": compared}, as_json)


if __name__ == "__main__":
    run(main)
