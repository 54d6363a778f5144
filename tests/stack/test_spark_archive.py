"""The archive of Spark's classes: taken where it is there, and never in the way."""

import subprocess
from pathlib import Path

import pytest

from pipeline_lib.config import Config, SparkSettings
from pipeline_lib.job import submit_command, submit_environment
from pipeline_lib.stack import spark_options

LOCAL = Config.model_construct(spark=SparkSettings())


def version(options: str) -> subprocess.CompletedProcess[str]:
    """`spark-submit --version`, as a job's JVM starts."""
    environment = submit_environment(LOCAL)
    environment["SPARK_SUBMIT_OPTS"] = f"{environment['SPARK_SUBMIT_OPTS']} {options}"
    line = [submit_command(LOCAL, "", [])[0], "--version"]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True)


def test_classes_come_from_the_archive(tmp_path: Path) -> None:
    assert spark_options.ARCHIVE.exists(), "make install makes it"
    version(f"-Xlog:class+load:file={tmp_path / 'loaded'}")
    loaded = (tmp_path / "loaded").read_text().splitlines()
    archived = [line for line in loaded if "org.apache.spark" in line and "shared objects file (top)" in line]
    read = [line for line in loaded if "org.apache.spark" in line and "source: file:" in line]
    assert len(archived) > 10 * len(read)


@pytest.mark.parametrize("text", [None, b"no archive"])
def test_an_archive_that_does_not_fit_is_passed_over(
    text: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_options, "ARCHIVE", tmp_path / "spark.jsa")
    if text:
        spark_options.ARCHIVE.write_bytes(text)
    done = version("")
    assert done.stdout == ""
    assert "version 4.2.0" in done.stderr
    assert "jsa" not in done.stderr
