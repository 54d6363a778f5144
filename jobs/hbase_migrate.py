"""HBase -> HBase: replaces a schema version of a topic's rows by another while both are written.

lode hbase migrate events --to v2                 # says where the migration stands and what comes next
lode hbase migrate events --to v2 --step start    # then check, switch, finish; undo until the switch
"""

from typing import Annotated, Literal

import typer

from pipeline_lib.config import load_config
from pipeline_lib.hbase import migrate
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, TopicName, run
from pipeline_lib.output import print_result
from pipeline_lib.topics import load_topic

To = Annotated[str, typer.Option(help="The version of the topic's [hbase] declaration that readers shall take.")]
Step = Annotated[
    Literal["start", "check", "switch", "finish", "undo"] | None, typer.Option(help="What to do; default: say what is.")
]


def main(topic: TopicName, to: To, step: Step = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Migrate a topic's rows to another schema version, step by step; readers see all rows at every moment."""
    deployment = load_config(config)
    declared = load_topic(deployment.topics, topic)
    run_units = spark_runner(f"lode hbase migrate {topic}")
    if step == "check":
        migrate.check(deployment, declared, to, run_units)
    elif step == "switch":
        migrate.switch(deployment, declared, to, run_units)
    elif step:
        {"start": migrate.start, "finish": migrate.finish, "undo": migrate.undo}[step](deployment, declared, to)
    print_result(migrate.state(deployment, declared, to), as_json)


if __name__ == "__main__":
    run(main)
