"""Which table a datasource is loaded from."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline_lib.analysis.declaration import load_analyses
from pipeline_lib.config import Config, DruidSettings
from pipeline_lib.datasets import analysis_path, events_path, traffic_path
from pipeline_lib.druid.declaration import NAME, Datasource
from pipeline_lib.errors import ConfigError
from pipeline_lib.topics import load_topics

_TABLES: dict[str, Callable[..., str]] = {"traffic": traffic_path, "results": analysis_path}


@dataclass(frozen=True)
class Source:
    """A datasource by its name in Druid, and the Delta table that it is loaded from."""

    name: str
    table: str
    declared: Datasource


def find_source(config: Config, name: str) -> Source:
    """Raises ConfigError where no topic and no analysis declares the datasource."""
    every = list(all_sources(config))
    if found := [source for source in every if source.name == name]:
        return found[0]
    known = ", ".join(source.name for source in every) or "none"
    raise ConfigError(
        f"datasource {name!r} is not declared: no [druid] in {config.topics} and no [druid.TABLE] in {config.analyses}"
        f" names it; declared: {known}"
    )


def all_sources(config: Config) -> Iterator[Source]:
    """Every declared datasource: a topic's has its name, an analysis' NAME_TABLE, unless declared otherwise."""
    for topic in load_topics(config.topics):
        if topic.druid:
            yield _source(topic.druid, topic.name, events_path(config.hdfs, topic.name))
    for name, analysis in load_analyses(config.analyses).items():
        for table, declared in analysis.druid.items():
            yield _source(declared, f"{name}_{table}", _TABLES[table](config.hdfs, name))


def druid_settings(config: Config) -> DruidSettings:
    if config.druid is None:
        raise ConfigError(
            "the deployment has no [druid] with coordinator and broker (a local one: `lode stack up druid`)"
        )
    return config.druid


def _source(declared: Datasource, default: str, table: str) -> Source:
    name = declared.datasource or default
    if not re.match(NAME, name):
        raise ConfigError(f"{name!r} cannot be a datasource's name: give it another with `datasource = ...`")
    return Source(name, table, declared)
