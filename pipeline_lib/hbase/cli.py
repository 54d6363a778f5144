"""Commands about HBase that need no Spark."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipeline_lib.batches.progress import app_id
from pipeline_lib.config import Config, load_config
from pipeline_lib.errors import ConfigError, ServerUnavailable
from pipeline_lib.hbase.clusters import Cluster, configured, mapping_of, open_cluster
from pipeline_lib.hbase.readers import choose_reader, notes_of
from pipeline_lib.hbase.results import Result, read_results
from pipeline_lib.hbase.state import State
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.job import AsJson, ConfigPath, TopicName
from pipeline_lib.output import print_result, print_rows
from pipeline_lib.topics import Topic, load_topic


def results(
    experiment: Annotated[str | None, typer.Argument(help="Only this experiment; default: all.")] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show experiment results as the results page reads them: from Prod, or from Loki while Prod is away or behind."""
    choice = choose_reader(load_config(config))
    with choice.cluster as cluster:
        found = read_results(cluster, experiment)
    if experiment and not found:
        raise ConfigError(f"HBase {cluster.name} has no results of experiment {experiment!r}")
    if as_json:
        rows = [{"experiment": r.experiment, "metric": r.metric, "segment": r.segment, "variation": r.variation,
                 **r.values, "until": _time(r.until_ms)} for r in found]  # fmt: skip
        print_result({"cluster": cluster.name, "passed": choice.passed, "results": rows}, as_json)
        return
    if found:
        print(f"Results, read from {cluster.name}")
    for name in dict.fromkeys(result.experiment for result in found):
        _print_experiment(name, [result for result in found if result.experiment == name])
    if not found:
        print(f"No results yet in {cluster.name}")
    for name, reason in choice.passed.items():
        print(f"{name} {'is read all the same' if name == cluster.name else 'was not read'}: {reason}")


def status(topic: TopicName, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Show each cluster: whether it answers, what it serves, how far it is behind Kafka, and who reads it."""
    deployment = load_config(config)
    declared = load_topic(deployment.topics, topic)
    found = [_status(deployment, declared, name) for name in configured(deployment)]
    if as_json:
        print_result({str(values["cluster"]): values for values in found}, as_json)
        return
    names = list(dict.fromkeys(name for values in found for name in values))
    print_rows(
        f"HBase for {topic}", names, [[_text(values.get(name)) for name in names] for values in found], ["behind"]
    )


def _status(config: Config, topic: Topic, name: Cluster) -> dict[str, object]:
    notes = notes_of(config, name)
    values: dict[str, object] = {"cluster": name, "state": notes.get("maintenance", "up"), **_since(notes)}
    mapping = mapping_of(topic)
    try:
        with open_cluster(config, name) as cluster, Kafka(config.kafka) as kafka:
            state = State(cluster)
            state.create()
            served = state.served(topic.name, mapping)
            info = kafka.describe(topic.name)
            ends = {p: end for p, (_, end) in kafka.offsets(info).items()}
            apps = {p: app_id(info.topic_id, p) for p in ends}
            progress = {v: state.progress(mapping.version(v).table, apps) for v in served}
            behind = {v: sum(end - at.get(p, 0) for p, end in ends.items()) for v, at in progress.items()}
            values |= {"id": cluster.cluster_id(), "serves": ", ".join(served), "read": state.read(topic.name, mapping)}
            values |= {"behind": max(behind.values())}
    except ServerUnavailable as error:
        values["state"] = f"away: {error}"
    return values


def _since(notes: dict[str, str]) -> dict[str, str]:
    return {"diverged_since": notes["diverged_since"]} if "diverged_since" in notes else {}


def _print_experiment(name: str, found: Sequence[Result]) -> None:
    """A table; what is the same in all its lines stands above it, to leave the width of a terminal to the figures."""
    shown = [
        {"metric": result.metric, "segment": result.segment, "variation": str(result.values.get("name", result.variation)),
         **_shown(result.values), "until": _time(result.until_ms)}
        for result in found
    ]  # fmt: skip
    names = list(dict.fromkeys(name for values in shown for name in values if name != "until"))
    said = []
    for column in ("segment", "until"):
        held = {values[column] for values in shown}
        names = [name for name in names if name != column] + ([column] if len(held) > 1 else [])
        said += [f"{column} {held.pop()}"] if len(held) == 1 else []
    lines = [[values.get(name, "") for name in names] for values in shown]
    words = ("metric", "variation", "segment", "until")
    print_rows(
        ", ".join([f"Experiment {name}", *said]),
        [_SHORT.get(name, name) for name in names],
        lines,
        right=[_SHORT.get(name, name) for name in names if name not in words],
    )


_SHORT = {"p_value": "p", "q_value": "q", "always_valid_p": "always-valid p"}
_NOT_SHOWN = ("name", "total", "always_valid_low", "always_valid_high")
"""What is in --json and on the report's pages, and would make a terminal's lines wrap."""


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    """The figures as text; those of NAME_low and NAME_high stand behind NAME. Of a result without one, its reason."""
    found = {name: _text(value) for name, value in values.items() if name not in _NOT_SHOWN}
    if "reason" in found:
        return {name: text for name, text in found.items() if name in ("value", "visitors")} | {"lift": found["reason"]}
    for name in [name.removesuffix("_low") for name in found if name.endswith("_low")]:
        interval = f"[{found.pop(f'{name}_low')}, {found.pop(f'{name}_high', '')}]"
        found[name] = f"{found.get(name, '')} {interval}".strip()
    return found


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="minutes")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
