"""Results as the results page reads them: from Prod, from Loki when Prod is away, and saying which."""

import json
import socket

import pytest
from deployments import Deployment

from pipeline_lib.errors import ServerUnavailable
from pipeline_lib.hbase.readers import choose_reader
from pipeline_lib.hbase.results import Result, read_results, write_results
from pipeline_lib.io.hbase import HBase

DAY = 1_795_392_000_000


def results(experiment: str) -> list[Result]:
    """What the analysis issue will write; here by hand."""
    figures = {"visitors": 5000, "lift": 0.04, "p": 0.031}
    none = {"reason": "sample ratio mismatch"}
    return [
        Result(experiment, "purchase", "all", "blue", figures, DAY),
        Result(experiment, "purchase", "all", "red", none, DAY),
    ]


def test_results_come_back_and_older_ones_never_hide_newer(prod: HBase) -> None:
    first, second = results("x-1")
    write_results(prod, [first, second, *results("x-10")])
    newer = Result(first.experiment, first.metric, first.segment, first.variation, {"visitors": 6000}, DAY + 1)
    write_results(prod, [newer])
    write_results(prod, [first, second])
    assert read_results(prod, "x-1") == [newer, second]


def test_loki_is_read_while_prod_is_away(served: Deployment, prod: HBase, loki: HBase) -> None:
    for cluster in (prod, loki):
        write_results(cluster, results("y"))
    shown = json.loads(served.lode("results", "y", "--json").stdout)
    assert (shown["cluster"], shown["passed"], len(shown["results"])) == ("prod", {}, 2)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
    text = served.path.read_text()
    served.path.write_text(f'{text}[hbase.prod]\nthrift = "{closed}"\n')
    shown = json.loads(served.lode("results", "y", "--json").stdout)
    assert shown["cluster"] == "loki"
    assert shown["passed"]["prod"].startswith("away")
    printed = served.lode("results", "y").stdout
    assert "Results, read from loki" in printed
    assert "prod was not read: away" in printed
    assert "no results of experiment 'nope'" in served.lode("results", "nope", check=2).stderr
    served.path.write_text(f'{text}[hbase.prod]\nthrift = "{closed}"\n[hbase.loki]\nthrift = "{closed}"\n')
    refused = served.lode("results", check=1)
    assert "prod" in refused.stderr
    assert "loki" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_cluster_that_answers_is_an_error(served: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        away = served.config.hbase.model_copy(
            update={
                name: getattr(served.config.hbase, name).model_copy(
                    update={"thrift": f"127.0.0.1:{unused.getsockname()[1]}"}
                )
                for name in ("prod", "loki")
            }
        )
    with pytest.raises(ServerUnavailable, match=r"prod.*loki"):
        choose_reader(served.config.model_copy(update={"hbase": away}))
