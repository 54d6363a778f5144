"""A schema version is replaced by another while both are written.

start -> (replay the history into the new table) -> check -> switch -> finish. Each step can be repeated; until the switch
the migration can be undone. Readers take one version all along, whole at every moment: the old one until the check has
found the new one equal.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline_lib.batches.progress import app_id
from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError, VerificationFailed
from pipeline_lib.hbase.clusters import Cluster, configured, ensure_table, mapping_of, open_cluster
from pipeline_lib.hbase.mapping import HBaseMapping, HBaseVersion, decode_row
from pipeline_lib.hbase.state import State
from pipeline_lib.io.hbase import Cells
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.landing.rows import landed_schema
from pipeline_lib.log import fact
from pipeline_lib.topics import Topic

EXAMPLES = 10


def start(config: Config, topic: Topic, to: str) -> None:
    """From now on serve writes the new version too, in each cluster from where the old one stands."""
    mapping = mapping_of(topic)
    version = mapping.version(to)
    with Kafka(config.kafka) as kafka:
        info = kafka.describe(topic.name)
    apps = {p: app_id(info.topic_id, p) for p in info.partitions}
    for name in configured(config):
        with open_cluster(config, name) as cluster:
            ensure_table(cluster, mapping, version)
            state = State(cluster)
            state.create()
            served = state.served(topic.name, mapping)
            if to in served:
                continue
            known = state.progress(version.table, apps)
            for p, until in state.progress(mapping.version(served[0]).table, apps).items():
                if known.get(p) != until:
                    state.move(version.table, apps[p], known.get(p), until)
            state.set_served(topic.name, [*served, to])
            fact("migration_started", cluster=name, topic=topic.name, to=to)


def undo(config: Config, topic: Topic, to: str) -> None:
    """Serve writes the new version no longer; its table stays, and is replayed into again after another start.

    Raises:
        ConfigError: readers have been switched to it.
    """
    mapping = mapping_of(topic)
    mapping.version(to)
    _each_state(config, lambda name, state: _refuse_if_read(state, topic, mapping, to))
    _each_state(
        config,
        lambda name, state: state.set_served(topic.name, [v for v in state.served(topic.name, mapping) if v != to]),
    )


def switch(config: Config, topic: Topic, to: str, run_units: "Runner") -> int:
    """Readers take the new version, once it is equal to the old one in every cluster; returns the rows compared.

    Raises:
        VerificationFailed: the versions differ; readers still take the old one.
    """
    compared = check(config, topic, to, run_units)
    _each_state(config, lambda name, state: state.set_read(topic.name, to))
    fact("migration_switched", topic=topic.name, to=to)
    return compared


def finish(config: Config, topic: Topic, to: str) -> None:
    """Serve writes the new version only. Raises ConfigError where readers do not take it yet."""
    mapping = mapping_of(topic)
    mapping.version(to)

    def refuse_unless_read(name: Cluster, state: State) -> None:
        if state.read(topic.name, mapping) != to:
            raise ConfigError(f"HBase {name}: readers take {state.read(topic.name, mapping)}: switch to {to} first")

    _each_state(config, refuse_unless_read)
    _each_state(config, lambda name, state: state.set_served(topic.name, [to]))


def state(config: Config, topic: Topic, to: str) -> dict[str, str]:
    """Where the migration stands, and the line that carries it on."""
    mapping = mapping_of(topic)
    mapping.version(to)
    served: dict[Cluster, list[str]] = {}
    read: dict[Cluster, str] = {}

    def ask(name: Cluster, state: State) -> None:
        served[name], read[name] = state.served(topic.name, mapping), state.read(topic.name, mapping)

    _each_state(config, ask)
    line = f"lode hbase migrate {topic.name} --to {to} --step"
    if not all(to in versions for versions in served.values()):
        following = f"{line} start"
    elif any(version != to for version in read.values()):
        following = (
            f"lode replay hbase {topic.name} --version {to} --since ... --until ...; {line} check; {line} switch"
        )
    else:
        following = f"{line} finish" if any(versions != [to] for versions in served.values()) else "nothing: it is done"
    return {
        "topic": topic.name,
        "to": to,
        "serve writes": "; ".join(f"{name}: {', '.join(versions)}" for name, versions in served.items()),
        "readers take": "; ".join(f"{name}: {version}" for name, version in read.items()),
        "next": following,
    }


def _refuse_if_read(state: State, topic: Topic, mapping: HBaseMapping, to: str) -> None:
    if state.read(topic.name, mapping) == to:
        raise ConfigError(f"readers of {topic.name!r} take {to}: it can no longer be undone")


def _each_state(config: Config, work: Callable[[Cluster, State], None]) -> None:
    for name in configured(config):
        with open_cluster(config, name) as cluster:
            state = State(cluster)
            state.create()
            work(name, state)


@dataclass(frozen=True)
class CheckUnit:
    """One salt's rows of both versions in one cluster."""

    config: Config
    cluster: Cluster
    topic: Topic
    old: str
    new: str
    start: bytes
    stop: bytes | None


@dataclass
class Checked:
    rows: int = 0
    differing: int = 0
    examples: list[str] = field(default_factory=list)


Runner = Callable[[Callable[[CheckUnit], Checked], list[CheckUnit]], list[Checked]]


def check(config: Config, topic: Topic, to: str, run_units: Runner) -> int:
    """Compares the decoded rows of the version that readers take with the new one's, in every cluster; returns how many
    there are.

    Raises:
        VerificationFailed: they differ, or there are none.
    """
    mapping = mapping_of(topic)
    mapping.version(to)
    units = []
    for name in configured(config):
        with open_cluster(config, name) as cluster:
            state = State(cluster)
            state.create()
            if to not in state.served(topic.name, mapping):
                raise ConfigError(
                    f"HBase {name}: serve does not write {to} of {topic.name!r}: start the migration first"
                )
            old = state.read(topic.name, mapping)
        stops: list[bytes | None] = [*mapping.salts[1:], None]
        for salt, stop in zip(mapping.salts, stops, strict=True):
            units.append(CheckUnit(config, name, topic, old, to, salt, stop))
    parts = run_units(check_unit, units)
    rows, differing = sum(part.rows for part in parts), sum(part.differing for part in parts)
    if differing:
        examples = [example for part in parts for example in part.examples][:EXAMPLES]
        raise VerificationFailed(
            f"{differing} of {rows} rows of {topic.name!r} differ between the versions, such as: {'; '.join(examples)}. "
            f"Replay the history with `lode replay hbase {topic.name} --version {to}`, or let serve catch up"
        )
    return rows


def check_unit(unit: CheckUnit) -> Checked:
    """Rows that differ are read again by their keys: serve writes one version after the other."""
    mapping, schema, checked = mapping_of(unit.topic), landed_schema(unit.topic.make_codec()), Checked()
    old, new = mapping.version(unit.old), mapping.version(unit.new)
    with open_cluster(unit.config, unit.cluster) as left, open_cluster(unit.config, unit.cluster) as right:
        pairs = merged(left.scan(old.table, unit.start, unit.stop), right.scan(new.table, unit.start, unit.stop))
        for key, one, other in pairs:
            checked.rows += 1
            if _same(one, other, schema, mapping, old, new):
                continue
            one, other = left.get(old.table, [key]).get(key), right.get(new.table, [key]).get(key)
            if not _same(one, other, schema, mapping, old, new):
                checked.differing += 1
                checked.examples += [_example(unit.cluster, key, one, other)] * (len(checked.examples) < EXAMPLES)
    return checked


def merged(
    left: Iterator[tuple[bytes, Cells]], right: Iterator[tuple[bytes, Cells]]
) -> Iterator[tuple[bytes, Cells | None, Cells | None]]:
    """Two scans in the order of their keys as one: the cells of each key on either side."""
    one, other = next(left, None), next(right, None)
    while one or other:
        if one and (not other or one[0] < other[0]):
            yield one[0], one[1], None
            one = next(left, None)
        elif other and (not one or other[0] < one[0]):
            yield other[0], None, other[1]
            other = next(right, None)
        elif one and other:
            yield one[0], one[1], other[1]
            one, other = next(left, None), next(right, None)


def _same(
    one: Cells | None,
    other: Cells | None,
    schema: pa.Schema,
    mapping: HBaseMapping,
    old: HBaseVersion,
    new: HBaseVersion,
) -> bool:
    if one is None or other is None:
        return one is other
    try:
        left = decode_row({name: value for name, (value, _) in one.items()}, schema, mapping, old)
        right = decode_row({name: value for name, (value, _) in other.items()}, schema, mapping, new)
    except ValueError:
        return False
    return all(left[name] == right[name] for name in left.keys() & right.keys())


def _example(cluster: str, key: bytes, one: Cells | None, other: Cells | None) -> str:
    what = "only in the old one" if other is None else "only in the new one" if one is None else "different"
    return f"{cluster} {key.hex()} ({what})"
