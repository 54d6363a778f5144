"""Jars and Java: what is fetched is what was locked; nothing is fetched twice."""

import hashlib
from pathlib import Path

import pytest

from pipeline_lib.errors import ConfigError, LodeError
from pipeline_lib.stack import jars
from pipeline_lib.stack.java import java_home

_COORDINATE = "org.example:thing:1.0:linux"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror that holds one jar; the lock names it, the cache is empty."""
    jar = tmp_path / "mirror/org/example/thing/1.0/thing-1.0-linux.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    monkeypatch.setattr(jars, "read_lock", lambda: {"set": {_COORDINATE: sha256}})
    monkeypatch.setenv("LODE_JARS_URL", f"file://{tmp_path}/mirror")
    monkeypatch.setenv("LODE_CACHE", str(tmp_path / "cache"))
    return jar


def test_a_fetched_jar_needs_no_mirror_any_more(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = jars.fetch(["set"])
    assert first["set"][0].read_bytes() == b"content"
    mirror.unlink()
    monkeypatch.setattr(jars, "base_url", lambda: pytest.fail("the network was asked"))
    assert jars.fetch(["set"]) == first


def test_a_jar_with_other_bytes_is_refused(mirror: Path, tmp_path: Path) -> None:
    mirror.write_bytes(b"other content")
    with pytest.raises(LodeError, match=r"org\.example:thing:1\.0:linux: .* not the one in jars\.lock"):
        jars.fetch(["set"])
    assert not list((tmp_path / "cache").rglob("*.jar"))
    mirror.write_bytes(b"content")
    assert jars.fetch(["set"])["set"][0].exists()


def test_a_mirror_that_lacks_a_jar_is_told(mirror: Path) -> None:
    mirror.unlink()
    with pytest.raises(LodeError, match=r"thing:1\.0:linux could not be downloaded: FileNotFoundError"):
        jars.fetch(["set"])


def test_an_unknown_set_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no jar set kafak; there are kafka, hdfs"):
        jars.fetch(["kafak"])


def test_the_address_comes_from_sparks_ivy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LODE_JARS_URL", raising=False)
    address = jars.base_url()
    assert address.startswith("https://")
    assert address.endswith("/maven2/")


@pytest.mark.parametrize("version", ['JAVA_VERSION="1.8.0_392"', 'JAVA_VERSION="11.0.2"'])
def test_an_old_java_is_refused(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").touch()
    (tmp_path / "release").write_text(version + "\n")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="Lode needs 17"):
        java_home()
    (tmp_path / "release").write_text('JAVA_VERSION="21"\n')
    assert java_home() == tmp_path


def test_without_java_home_the_packaged_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert (java_home() / "bin/java").exists()
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(ConfigError, match="holds no Java"):
        java_home()
