"""Deployment files: each mistake is named with file, key, value and what is allowed; secrets never show."""

import json
import re
from pathlib import Path

import pytest

from pipeline_lib.config import load_config, without_secrets
from pipeline_lib.errors import ConfigError
from pipeline_lib.job import submit_command

GOOD = """
[kafka]
bootstrap_servers = "broker:9092"
[s3]
bucket = "archive"
[hdfs]
url = "hdfs://namenode:9000"
"""
SECRETS = {"LODE_S3_ACCESS_KEY": "AKIA-access", "LODE_S3_SECRET_KEY": "s3cr3t-key", "LODE_KAFKA_PASSWORD": "passw0rd"}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LODE_CONFIG", raising=False)
    monkeypatch.delenv("LODE_STACK_HOME", raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def write(folder: Path, text: str) -> Path:
    path = folder / "lode.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.kafka.bootstrap_servers == "broker:9092"
    assert config.s3.secret_key.get_secret_value() == "s3cr3t-key"
    assert config.kafka.password is not None
    assert config.kafka.password.get_secret_value() == "passw0rd"


def test_secrets_never_show(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    for text in (
        repr(config),
        str(config),
        repr(config.s3),
        str(config.kafka),
        config.model_dump_json(),
        f"{config!r}",
    ):
        assert not [secret for secret in SECRETS.values() if secret in text]


def test_the_file_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODE_CONFIG", str(write(tmp_path, GOOD)))
    assert load_config().s3.bucket == "archive"


MISTAKES = [
    (GOOD + "colour = 1", r"hdfs\.colour: unknown key; allowed here: url, root, web$"),
    (
        "colour = 1\n" + GOOD,
        "colour: unknown key; allowed here: stack, topics, analyses, secrets, kafka, s3, hdfs, hbase, druid, spark, batch",
    ),
    (GOOD.replace("[s3]", "timeout_s = 'x'\n[s3]"), "kafka.timeout_s = 'x': .*integer"),
    (GOOD.replace("[s3]", "timeout_s = 0\n[s3]"), "kafka.timeout_s = 0: .*greater than or equal to 1"),
    (GOOD.replace("[s3]", "security_protocol = 'TLS'\n[s3]"), "kafka.security_protocol = 'TLS': .*'SASL_SSL'"),
    (GOOD.replace("archive", "No_Bucket"), "s3.bucket = 'No_Bucket': .*pattern"),
    (GOOD.replace("[hdfs]", "prefix = 'a'\n[hdfs]"), "s3.prefix = 'a': .*pattern"),
    (GOOD.replace("hdfs://", "http://"), "hdfs.url = 'http://namenode:9000': .*pattern"),
    (GOOD.replace('bucket = "archive"', ""), "s3.bucket: missing"),
    (GOOD.replace("[hdfs]", "[hdsf]"), "hdfs: missing\n.*hdsf: unknown key; allowed here: .*hdfs"),
    (GOOD + "[batch]\nmax_records = 0", "batch.max_records = 0"),
    (GOOD + "[batch]\nmax_recodrs = 1", "batch.max_recodrs: unknown key; allowed here: max_records, "),
    (GOOD + "[spark]\njars = 'a.jar'", "spark.jars = 'a.jar': .*list"),
    ("s3 = 3\nkafka = 'x'\nhdfs = []", "s3 = 3: .*dictionary"),
    ("kafka = 3\n[s3]\nbucket = 'archive'\n[hdfs]\nurl = 'hdfs://n'", "kafka = 3: .*dictionary"),
    ("stack = 3\n" + GOOD, "stack = 3: "),
    (GOOD + "[s3", "twice|Expected"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert re.search(message, str(caught.value), re.DOTALL | re.MULTILINE), str(caught.value)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())
    assert not [secret for secret in SECRETS.values() if secret in str(caught.value)]


@pytest.mark.parametrize("name", ["LODE_S3_ACCESS_KEY", "LODE_S3_SECRET_KEY"])
def test_a_missing_secret_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=f"missing secret; set {name} in the environment"):
        load_config(write(tmp_path, GOOD))


@pytest.mark.parametrize(("section", "key"), [("s3", "secret_key"), ("s3", "access_key"), ("kafka", "password")])
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, section: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{key} is a secret; give it as LODE_") as caught:
        load_config(write(tmp_path, GOOD.replace(f"[{section}]", f"[{section}]\n{key} = 'hunter2'")))
    assert "hunter2" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        load_config(tmp_path)  # a folder
    (tmp_path / "noise.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"noise\.toml"):
        load_config(tmp_path / "noise.toml")


@pytest.fixture
def stack_home(tmp_path: Path) -> Path:
    home = tmp_path / "stack"
    home.mkdir()
    endpoints = {
        "kafka.bootstrap": "127.0.0.1:1",
        "s3.endpoint": "http://127.0.0.1:2",
        "hdfs.url": "hdfs://127.0.0.1:3",
    }
    (home / "state.json").write_text(json.dumps({"endpoints": endpoints}))
    (home / "s3.secret").write_text(json.dumps({"access_key": "local", "secret_key": "stack-secret"}))
    return home


def test_a_stack_gives_what_the_file_does_not(
    tmp_path: Path, stack_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name)
    path = write(tmp_path, f'stack = "{stack_home}"\n[kafka]\nbootstrap_servers = "own:1"\n[s3]\nbucket = "lode"')
    config = load_config(path)
    assert (config.kafka.bootstrap_servers, config.s3.endpoint) == ("own:1", "http://127.0.0.1:2")
    assert config.s3.secret_key.get_secret_value() == "stack-secret"
    assert "stack-secret" not in repr(config)


def test_a_stack_that_was_never_started_or_is_broken_is_named(tmp_path: Path, stack_home: Path) -> None:
    path = write(tmp_path, f'stack = "{tmp_path / "other"}"\n[s3]\nbucket = "lode"')
    with pytest.raises(ConfigError, match=r"state\.json: no such file.*lode stack up"):
        load_config(path)
    with pytest.raises(ConfigError, match="s3 = 3"):
        load_config(write(tmp_path, f'stack = "{stack_home}"\ns3 = 3'))
    (stack_home / "state.json").write_text('{"endpoints"')
    with pytest.raises(ConfigError, match=r"state\.json"):
        load_config(write(tmp_path, f'stack = "{stack_home}"\n[s3]\nbucket = "lode"'))


YARN = '[spark]\nmaster = "yarn"\ndeploy_mode = "cluster"\npackage = "p"\n'


@pytest.mark.parametrize(
    ("spark", "says"),
    [
        ('[spark]\nmaster = "yarn"\ndeploy_mode = "cluster"\n', "set package"),
        ('[spark]\nmaster = "spark://m:7077"\ndeploy_mode = "cluster"\npackage = "p"\n', "inside spark://m:7077"),
        ('[spark]\nmaster = "mesos://m"\n', "spark.master = 'mesos://m'"),
        ('[spark.properties]\n"spark.hadoop.fs.s3a.secret.key" = "hush"\n', "fs.s3a.secret.key looks like a secret"),
    ],
)
def test_wrong_engines_are_named(spark: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as told:
        load_config(write(tmp_path, GOOD + spark))
    assert "hush" not in str(told.value)


def test_secrets_come_from_a_file_that_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name)
    file = tmp_path / "secrets.toml"
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in SECRETS.items()))
    path = write(tmp_path, f'secrets = "{file}"\n{GOOD}')
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"open to others \(mode 640\): chmod 600 it"):
        load_config(path)
    file.chmod(0o600)
    assert load_config(path).s3.secret_key.get_secret_value() == "s3cr3t-key"
    monkeypatch.setenv("LODE_S3_SECRET_KEY", "newer")
    assert load_config(path).s3.secret_key.get_secret_value() == "newer", "the environment decides"
    file.write_text('LODE_S3_SECRT_KEY = "s3cr3t-key"')
    with pytest.raises(ConfigError, match="LODE_S3_SECRT_KEY: no secret of that name") as told:
        load_config(path)
    assert "s3cr3t-key" not in str(told.value)


def test_a_cluster_s_driver_gets_the_path_of_the_secrets_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD + YARN)
    with pytest.raises(ConfigError, match="the driver inherits no environment"):
        submit_command(load_config(path), "kafka_to_s3.py", ["events"])
    file = tmp_path / "secrets.toml"
    file.write_text("")
    file.chmod(0o600)
    monkeypatch.setenv("LODE_SECRETS", str(file))
    line = submit_command(load_config(path), "kafka_to_s3.py", ["events", "--config", str(path), "--json"])
    assert line[-2:] == ["events", "--json"]
    assert line[line.index("--files") + 1] == str(file)
    assert "spark.yarn.appMasterEnv.LODE_SECRETS=secrets.toml" in line
    assert not [secret for secret in SECRETS.values() if secret in " ".join(line)]
    known = without_secrets(load_config(path))
    assert not [secret for secret in SECRETS.values() if secret in json.dumps(known)]
