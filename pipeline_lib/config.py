"""What a deployment is: one TOML file with the addresses of its systems and the bounds of a batch.

An unknown key is an error, since it is most likely a typing error. Secrets never stand in the file: they come from the
environment (LODE_S3_ACCESS_KEY, LODE_S3_SECRET_KEY, LODE_KAFKA_PASSWORD) or from a file that only the job's user can
read (`secrets = "PATH"`, or LODE_SECRETS), where they have the same names.
A file with `stack = "FOLDER"` takes the addresses that it does not give from that local stack's state.
"""

import json
import os
import tomllib
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError

from pipeline_lib.engines import SHOWN_WITHOUT_VALUE
from pipeline_lib.engines import SparkSettings as SparkSettings
from pipeline_lib.errors import ConfigError
from pipeline_lib.secret_files import read_secrets
from pipeline_lib.settings import Settings as Settings

M = TypeVar("M", bound=BaseModel)

DEFAULT_CONFIG = Path("conf/local.toml")
SECRETS_FILE = "LODE_SECRETS"


class KafkaSettings(Settings):
    bootstrap_servers: str
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    password: SecretStr | None = Field(default=None, repr=False)
    ssl_cafile: str | None = None
    timeout_s: int = Field(default=30, ge=1, description="how long a silent broker is waited for")


class S3Settings(Settings):
    endpoint: str | None = Field(default=None, description="none: AWS itself")
    region: str = "us-east-1"
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: str = Field(default="", pattern=r"^([A-Za-z0-9._-]+/)*$")
    access_key: SecretStr = Field(repr=False)
    secret_key: SecretStr = Field(repr=False)
    timeout_s: int = Field(default=30, ge=1)


class HdfsSettings(Settings):
    url: str = Field(pattern=r"^(hdfs://|viewfs://|file:/)")
    root: str = Field(default="/lode", pattern=r"^/")
    web: str | None = Field(
        default=None, description="http(s)://host:port of WebHDFS; for a Druid that cannot read HDFS"
    )


class HBaseCluster(Settings):
    thrift: str = Field(pattern=r"^[^:]+:\d+$", description="host:port of a Thrift 1 server")
    zookeeper: str | None = Field(
        default=None, description="host:port; only to make tables that are split from the start"
    )
    transport: Literal["buffered", "framed"] = "buffered"
    protocol: Literal["binary", "compact"] = "binary"
    timeout_s: int = Field(default=30, ge=1, description="how long a silent server is waited for, and retried")


class HBaseSettings(Settings):
    """The two clusters, and the bounds of a request to them."""

    prod: HBaseCluster | None = None
    loki: HBaseCluster | None = None
    batch_rows: int = Field(default=1000, ge=1)
    batch_bytes: int = Field(default=2 << 20, ge=1 << 10)
    max_rows_per_s: int | None = Field(default=None, ge=1, description="of one task's writes; none: as fast as it goes")


class DruidSettings(Settings):
    """`coordinator` is the overlord's address too, or that of a router before both."""

    coordinator: str = Field(pattern=r"^https?://")
    broker: str = Field(pattern=r"^https?://")
    timeout_s: int = Field(default=30, ge=1, description="how long an answer is waited for")
    task_timeout_s: int = Field(default=3600, ge=1, description="a task that runs longer is shut down")
    load_timeout_s: int = Field(
        default=600, ge=1, description="how long historicals may take to serve what was ingested"
    )
    tasks_at_once: int = Field(default=2, ge=1)


class BatchSettings(Settings):
    """Bounds of one batch, and so of the memory of a run whatever the backlog is."""

    max_records: int = Field(default=5_000_000, ge=1)
    max_bytes: int = Field(default=4 << 30, ge=1, description="on the broker; planned with its average record size")
    unit_records: int = Field(default=250_000, ge=1, description="the most offsets of one task")
    segment_bytes: int = Field(default=64 << 20, ge=1 << 20, description="raw bytes of one segment, held in memory")
    fetch_bytes: int = Field(default=8 << 20, ge=1 << 16)


class Config(Settings):
    """A deployment. Relative paths are relative to the working directory."""

    stack: Path | None = None
    topics: Path = Path("conf/topics")
    analyses: Path = Path("conf/analysis")
    secrets: Path | None = None
    kafka: KafkaSettings
    s3: S3Settings
    hdfs: HdfsSettings
    hbase: HBaseSettings = HBaseSettings()
    druid: DruidSettings | None = None
    spark: SparkSettings = SparkSettings()
    batch: BatchSettings = BatchSettings()


_SECRETS = {
    ("kafka", "password"): "LODE_KAFKA_PASSWORD",
    ("s3", "access_key"): "LODE_S3_ACCESS_KEY",
    ("s3", "secret_key"): "LODE_S3_SECRET_KEY",
}
_ENDPOINTS: dict[tuple[str, ...], str] = {
    ("kafka", "bootstrap_servers"): "kafka.bootstrap",
    ("s3", "endpoint"): "s3.endpoint",
    ("hdfs", "url"): "hdfs.url",
    ("spark", "hadoop_conf"): "hadoop.conf",
    ("hdfs", "web"): "hdfs.web",
    ("druid", "coordinator"): "druid.coordinator",
    ("druid", "broker"): "druid.broker",
    ("hbase", "prod", "thrift"): "hbase.prod.thrift",
    ("hbase", "prod", "zookeeper"): "hbase.prod.zookeeper",
    ("hbase", "loki", "thrift"): "hbase.loki.thrift",
    ("hbase", "loki", "zookeeper"): "hbase.loki.zookeeper",
}


def config_path(path: Path | None = None) -> Path:
    """The file that load_config reads."""
    return path or Path(os.environ.get("LODE_CONFIG", DEFAULT_CONFIG))


def load_config(path: Path | None = None) -> Config:
    """The deployment that a TOML file describes.

    Args:
        path: the file, TOML or (as `lode package` writes it) JSON; by default LODE_CONFIG of the environment, else
            conf/local.toml.

    Raises:
        ConfigError: the file is missing, is no TOML, has an unknown key or a wrong value, or a secret is missing.
    """
    path = config_path(path)
    values = read_toml(path)
    for section, key in _SECRETS:
        if key in _section(values, section):
            raise ConfigError(f"{path}: {section}.{key} is a secret; give it as {_SECRETS[section, key]} instead")
    _fill_from_stack(values)
    path_of_secrets = os.environ.get(SECRETS_FILE, values.get("secrets"))
    known = {**(read_secrets(Path(path_of_secrets), _SECRETS.values()) if path_of_secrets else {}), **os.environ}
    for (section, key), variable in _SECRETS.items():
        if variable in known:
            _section(values, section)[key] = known[variable]
    return validated(Config, values, path)


def without_secrets(config: Config) -> dict[str, Any]:
    """The deployment as JSON values that load_config reads again, but for its secrets."""
    secret: dict[str, set[str]] = {}
    for section, key in _SECRETS:
        secret.setdefault(section, set()).add(key)
    return config.model_dump(mode="json", exclude=secret, exclude_none=True)


def read_toml(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = (
            json.loads(path.read_text()) if path.suffix == ".json" else tomllib.loads(path.read_text())
        )
        return values
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def validated(model: type[M], values: dict[str, Any], path: Path) -> M:
    """The values as a model; a ConfigError names the file, each key, its value and what is allowed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(model, problem, path) for problem in error.errors())) from None


def _explain(model: type[BaseModel], problem: Any, path: Path) -> str:
    key = ".".join(map(str, problem["loc"]))
    secret = _SECRETS.get(tuple(problem["loc"]))
    if secret:
        return f"{path}: {key}: missing secret; set {secret} in the environment"
    if problem["type"] == SHOWN_WITHOUT_VALUE:
        return f"{path}: {key}: {problem['msg']}"
    if problem["type"] == "missing":
        return f"{path}: {key}: missing"
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(_model_at(model, problem["loc"][:-1]).model_fields)
        return f"{path}: {key}: unknown key; allowed here: {allowed}"
    return f"{path}: {key} = {problem['input']!r}: {problem['msg']}"


def _model_at(model: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel]:
    for name in loc:
        found = model.model_fields[name].annotation if name in model.model_fields else None
        inner = next((a for a in (found, *get_args(found)) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if inner is None:
            break
        model = inner
    return model


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The section to read or fill; one that is no table is left to the validation to refuse."""
    section = values.setdefault(name, {})
    return section if isinstance(section, dict) else {}


def _fill_from_stack(values: dict[str, Any]) -> None:
    home = os.environ.get("LODE_STACK_HOME", values.get("stack"))
    if "stack" not in values or not isinstance(home, str):
        return
    values["stack"] = home
    state, secret = Path(home) / "state.json", Path(home) / "s3.secret"
    if not state.exists():
        raise ConfigError(f"{state}: no such file; the local stack was never started: run `lode stack up`")
    endpoints = _read_json(state)["endpoints"]
    for (*sections, key), name in _ENDPOINTS.items():
        if name in endpoints:
            reduce(_section, sections, values).setdefault(key, endpoints[name])
    if secret.exists():
        _section(values, "s3").update(_read_json(secret))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # without its text, which may hold a secret
        raise ConfigError(f"{path}: cannot be read; run `lode stack reset`, then `lode stack up`") from None
