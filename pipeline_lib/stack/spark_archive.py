"""Spark's classes in an archive that the JVM maps into memory instead of reading, checking and linking each of them.

Of the 5.7 s that a session took to start on two cores, 2.7 s were that. The archive (class data sharing, JEP 350) belongs
to one Java and one class path, so it stands in the virtual environment and goes with it: `python -m
pipeline_lib.stack.spark_archive` makes it, as `make install` does. Where it is missing or does not fit, the JVM starts as
it would without.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline_lib.config import Config, SparkSettings
from pipeline_lib.job import submit_command, submit_environment
from pipeline_lib.stack.java import java
from pipeline_lib.stack.spark_options import ARCHIVE, QUIET

TRAINING = Path(__file__).parents[1] / "io" / "spark_training.py"


def make(target: Path) -> None:
    """Makes the archive of what a small job loads. Raises CalledProcessError where Java or Spark fails.

    Java names the archive of its own classes within the one of Spark's, so that one has to keep its place.
    """
    base = target.with_suffix(".java.jsa")
    subprocess.run([str(java()), "-Xshare:dump", f"-XX:SharedArchiveFile={base}"], check=True, capture_output=True)
    config = Config.model_construct(spark=SparkSettings())
    line = submit_command(config, "", [])[:-1]
    options = [*QUIET, f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={target}.new"]
    environment = submit_environment(config) | {"SPARK_SUBMIT_OPTS": " ".join(options)}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*line, str(TRAINING), folder], check=True, capture_output=True, env=environment)
    os.replace(f"{target}.new", target)


def main() -> None:
    """Makes the archive for this environment, once; without it everything works and starts more slowly."""
    if ARCHIVE.exists():
        return
    print("Preparing Spark's start (once, about 20 s)", file=sys.stderr)
    try:
        make(ARCHIVE)
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or b""
        print(f"Spark will start more slowly: {error} {output.decode(errors='replace')[-500:]}", file=sys.stderr)


if __name__ == "__main__":
    main()
