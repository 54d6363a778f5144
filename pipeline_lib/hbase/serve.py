"""Kafka -> HBase: each cluster by itself, so that one that is away does not hold up the other."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline_lib.batches.progress import BatchPlan
from pipeline_lib.batches.run import Limits, RunReport, Source, Written, run_batches
from pipeline_lib.config import Config
from pipeline_lib.errors import ServerUnavailable
from pipeline_lib.hbase.clusters import configured, ensure_table, mapping_of, open_cluster
from pipeline_lib.hbase.mapping import rows
from pipeline_lib.hbase.put import Putter
from pipeline_lib.hbase.readers import ON, notes_of
from pipeline_lib.hbase.state import State, moment
from pipeline_lib.io.kafka import Kafka
from pipeline_lib.io.kafka_fetch import TopicInfo
from pipeline_lib.landing.rows import decoded_rows, land_records
from pipeline_lib.log import fact
from pipeline_lib.records.offsets import OffsetRange
from pipeline_lib.topics import Topic


@dataclass(frozen=True)
class ServeUnit:
    """A range of one partition, whole: of records with one key in one step of cell time the last one has to stand."""

    config: Config
    cluster: str
    topic: Topic
    version: str
    info: TopicInfo
    span: OffsetRange


@dataclass(frozen=True)
class Served:
    rows: int
    quarantined: int
    refused: int


Runner = Callable[[Callable[[ServeUnit], Served], list[ServeUnit]], list[Served]]


def serve_unit(unit: ServeUnit) -> Served:
    """Writes the rows of the unit's events."""
    config, mapping = unit.config, mapping_of(unit.topic)
    version, quarantined = mapping.version(unit.version), 0
    with open_cluster(config, unit.cluster) as cluster, Kafka(config.kafka) as kafka:
        putter = Putter(cluster, version.table, config.hbase)
        records = kafka.read(unit.info, unit.span, config.batch.fetch_bytes)
        for events in land_records(records, unit.topic.make_codec(), unit.info.topic_id, unit.span.partition):
            good = decoded_rows(events)
            quarantined += events.num_rows - good.num_rows
            putter.put(rows(good, mapping, version))
    return Served(putter.done.rows, quarantined, len(putter.done.refused))


@dataclass(frozen=True)
class ServeStage:
    """A version of a topic's table in one cluster, as a stage that follows Kafka."""

    config: Config
    topic: Topic
    cluster: str
    version: str
    run_units: Runner
    counts = ("rows", "quarantined", "refused")

    @property
    def name(self) -> str:
        return f"serve.{self.cluster}.{self.version}"

    def open(self, source: Source) -> "_OpenRows":
        with open_cluster(self.config, self.cluster) as cluster:
            mapping = mapping_of(self.topic)
            ensure_table(cluster, mapping, mapping.version(self.version))
        return _OpenRows(self, {})


@dataclass(frozen=True)
class _OpenRows:
    stage: ServeStage
    found: dict[str, int]

    @property
    def table(self) -> str:
        return mapping_of(self.stage.topic).version(self.stage.version).table

    def progress(self, app_ids: Mapping[int, str]) -> dict[int, int]:
        with open_cluster(self.stage.config, self.stage.cluster) as cluster:
            progress = State(cluster).progress(self.table, app_ids)
        self.found.update({app_ids[p]: at for p, at in progress.items()})
        return progress

    def write(self, source: Source, plan: BatchPlan, moves: Mapping[str, int]) -> Written:
        stage = self.stage
        units = [
            ServeUnit(stage.config, stage.cluster, stage.topic, stage.version, source.info, span)
            for span in plan.ranges
        ]
        parts = stage.run_units(serve_unit, units)
        with open_cluster(stage.config, stage.cluster) as cluster:
            for app, until in moves.items():
                State(cluster).move(self.table, app, self.found.get(app), until)
        counts = {name: sum(getattr(part, name) for part in parts) for name in stage.counts}
        fact("committed", stage=stage.name, topic=stage.topic.name, **counts)
        return Written(0, counts)


@dataclass
class ClusterReport:
    """What a run did in one cluster: a report for each version it serves, or why it was left out."""

    cluster: str
    versions: dict[str, RunReport] = field(default_factory=dict)
    away: str = ""

    def as_dict(self) -> dict[str, object]:
        reports = {name: report.as_dict() for name, report in self.versions.items()}
        return {"cluster": self.cluster, "away": self.away, **reports}


def serve_topic(config: Config, topic: Topic, limits: Limits, run_units: Runner) -> list[ClusterReport]:
    """Brings each cluster up to what Kafka has. A cluster that is away, or in maintenance, is noted as diverged in the
    other one, and catches up from its own progress in a later run.

    Raises:
        ServerUnavailable: no cluster could be served.
        LostRace: a concurrent run served the same records first.
    """
    mapping_of(topic)
    names = configured(config)
    with ThreadPoolExecutor(len(names)) as pool:
        reports = list(pool.map(lambda name: _serve_cluster(config, topic, limits, name, run_units), names))
    if all(report.away for report in reports):
        raise ServerUnavailable("; ".join(f"{report.cluster}: {report.away}" for report in reports))
    _note_diverged(config, reports)
    return reports


def _serve_cluster(config: Config, topic: Topic, limits: Limits, name: str, run_units: Runner) -> ClusterReport:
    report = ClusterReport(name)
    try:
        if notes_of(config, name).get("maintenance") == ON:
            report.away = "in maintenance"
            return report
        with open_cluster(config, name) as cluster:
            state = State(cluster)
            state.create()
            versions = state.served(topic.name, mapping_of(topic))
        for version in versions:
            stage = ServeStage(config, topic, name, version, run_units)
            report.versions[version] = run_batches(config, topic.name, limits, stage)
    except ServerUnavailable as error:
        with Kafka(config.kafka):  # it is the cluster that is away, not Kafka, whose absence ends the run
            report.away = str(error)
    return report


def _note_diverged(config: Config, reports: Sequence[ClusterReport]) -> None:
    """In every cluster that answers: which one stands behind, and since when. A first moment is kept."""
    for keeper in (report.cluster for report in reports if not report.away):
        with open_cluster(config, keeper) as cluster:
            state = State(cluster)
            for report in reports:
                known = state.note(report.cluster, "diverged_since")
                if report.away and not known:
                    state.set_note(report.cluster, "diverged_since", moment())
                    fact("diverged", cluster=report.cluster, reason=report.away)
                elif known and not report.away:
                    state.set_note(report.cluster, "diverged_since", None)
                    fact("caught_up", cluster=report.cluster, since=known)
