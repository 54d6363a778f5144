"""S3 -> HBase: the rows of archived events, in one cluster or both. Replayed twice it ends in the same table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline_lib.config import Config
from pipeline_lib.errors import ConfigError, TargetRefuses
from pipeline_lib.hbase.clusters import configured, differences, ensure_table, mapping_of, open_cluster
from pipeline_lib.hbase.mapping import CELL_STEP_MS
from pipeline_lib.io.s3 import S3
from pipeline_lib.replay.hbase_clear import Runner, clear
from pipeline_lib.replay.hbase_tail import TailUnit, open_tails, write_tail
from pipeline_lib.replay.hbase_units import HBaseTarget, HBaseUnit, write_unit
from pipeline_lib.replay.hbase_verify import verify_unit
from pipeline_lib.replay.plan import ReplayPlan
from pipeline_lib.replay.run import EXAMPLES, Replayed, Verified
from pipeline_lib.topics import load_topic


@dataclass(frozen=True)
class HBaseSink:
    """A version of a topic's table as the target of a replay; by default in every cluster that the deployment has."""

    config: Config
    run_units: Runner
    clusters: tuple[str, ...] = ()
    version: str = "v1"
    ids: tuple[str, ...] = ()
    clear_span: bool = False
    read_back: float = 1.0
    name = "hbase"

    def target(self, topic: str) -> dict[str, Any]:
        declared = load_topic(self.config.topics, topic)
        mapping_of(declared).version(self.version)
        ids = _cluster_ids(self.config, self.clusters or tuple(configured(self.config)))
        if len(set(ids.values())) < len(ids):
            raise ConfigError(f"hbase.prod and hbase.loki are one and the same cluster, {ids['prod']}")
        declaration = declared.model_dump(mode="json", exclude={"quality"})
        wanted = sorted(self.ids)
        return asdict(HBaseTarget(ids, self.version, declaration, wanted, self.clear_span, read_back=self.read_back))

    def complete(self, plan: ReplayPlan) -> ReplayPlan:
        target, span = HBaseTarget(**plan.target), plan.span
        if plan.by == "timestamp" and (span.since_ms % CELL_STEP_MS or span.until_ms % CELL_STEP_MS):
            raise ConfigError(
                f"{span}: by timestamp a span begins and ends with a whole minute, since the rows of one minute have "
                "equal cell timestamps: a part of them could hide later ones"
            )
        if not target.clear_span:
            return plan
        if plan.by != "event_time" or span.since_ms < 0:
            raise ConfigError("--clear-span needs --by event_time and a span since 1970: row keys begin with that time")
        if others := _others(self.config, target):
            raise ConfigError(f"--clear-span: table {target.table} also holds the rows of topic {', '.join(others)}")
        cleared = clear(self.config, plan, self.run_units, remove=False)
        return replace(plan, target={**plan.target, "cleared": cleared})

    def describe(self, plan: ReplayPlan) -> str:
        target = HBaseTarget(**plan.target)
        parts = [f"table {target.table} ({target.version}) in {', '.join(target.clusters)}"]
        parts += [f"ids {', '.join(target.ids)}"] if target.ids else []
        parts += [f"reads back {target.read_back:.2%} of the rows"] if target.read_back < 1 else []
        cleared = (f"{count:,} in {name}" for name, count in target.cleared.items())
        return "; ".join(parts + ([f"removes rows first: {', '.join(cleared)}"] if target.clear_span else []))

    def problems(self, plan: ReplayPlan) -> list[str]:
        target, found = HBaseTarget(**plan.target), []
        for name in target.clusters:
            with open_cluster(self.config, name) as cluster:
                table = cluster.describe(target.table)
            where = f"HBase {name}, table {target.table}"
            found += [f"{where}: {problem}" for problem in differences(table, target.mapping)] if table else []
        return found

    def begin(self, plan: ReplayPlan) -> dict[str, Any]:
        return {}

    def repeatable(self, plan: ReplayPlan) -> bool:
        return not HBaseTarget(**plan.target).clear_span  # what was counted then is not what would be removed now

    def check_resumable(self, plan: ReplayPlan) -> None:
        begun = HBaseTarget(**plan.target).clusters
        for name, found in _cluster_ids(self.config, begun).items():
            if found != begun[name]:
                raise TargetRefuses(
                    f"HBase {name} is now cluster {found}; the replay was planned for {begun[name]}: plan a new one"
                )

    def write(self, plan: ReplayPlan, begun: Mapping[str, Any], skip_corrupt: bool) -> Replayed:
        target = HBaseTarget(**plan.target)
        if target.clear_span and skip_corrupt:
            raise ConfigError("--clear-span would remove the rows of the segments that --skip-corrupt leaves out")
        for name in target.clusters:
            with open_cluster(self.config, name) as cluster:
                ensure_table(cluster, target.mapping, target.schema)
        if target.clear_span:
            clear(self.config, plan, self.run_units, remove=True)
        parts: list[Replayed] = self.run_units(write_unit, self._units(plan, skip_corrupt))
        if tails := open_tails(self.config, plan):
            units = [unit for unit in self._units(plan, skip_corrupt) if unit.partition in tails]
            self.run_units(write_tail, [TailUnit(unit, *tails[unit.partition]) for unit in units])
        corrupt = dict.fromkeys(path for part in parts for path in part.corrupt)
        refused = tuple(key for part in parts for key in part.refused)
        return Replayed(sum(part.records for part in parts), tuple(corrupt), refused)

    def verify(self, plan: ReplayPlan, begun: Mapping[str, Any], written: Replayed, skip_corrupt: bool) -> Verified:
        target = HBaseTarget(**plan.target)
        units = self._units(plan, skip_corrupt, frozenset(written.refused))
        parts: list[Verified] = self.run_units(verify_unit, units)
        for unit in units:  # a run after this one writes all again, above delete markers that are gone by then
            S3(self.config.s3).delete(unit.mark_key)
        records, missing, foreign = (sum(getattr(p, name) for p in parts) for name in ("records", "missing", "foreign"))
        advice = (
            f"`flush '{target.table}'` and then `major_compact '{target.table}'` in the HBase shell of the cluster drop "
            "the delete markers that hide them; then run the same line again"
        )
        examples = tuple(key for part in parts for key in part.examples)[:EXAMPLES]
        return Verified(records, missing, foreign, examples, advice if missing else "")

    def _units(self, plan: ReplayPlan, skip_corrupt: bool, refused: frozenset[str] = frozenset()) -> list[HBaseUnit]:
        return [
            HBaseUnit(self.config, plan, name, partition, skip_corrupt, refused)
            for partition in plan.partitions
            for name in HBaseTarget(**plan.target).clusters
        ]


def _cluster_ids(config: Config, names: Any) -> dict[str, str]:
    """Raises ServerUnavailable where one of the clusters is down."""
    ids = {}
    for name in names:
        with open_cluster(config, name) as cluster:
            ids[name] = cluster.cluster_id()
    return ids


def _others(config: Config, target: HBaseTarget) -> list[str]:
    """The other topics whose rows are in the target's table."""
    names = sorted(path.stem for path in config.topics.glob("*.toml") if path.stem != target.declared.name)
    topics = [load_topic(config.topics, name) for name in names]
    return [t.name for t in topics if t.hbase and target.table in {v.table for v in t.hbase.versions.values()}]
