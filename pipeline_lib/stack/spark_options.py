"""JVM options of a job's driver on this machine."""

import sys
from pathlib import Path

ARCHIVE = Path(sys.prefix) / "spark.jsa"
"""Spark's classes, if they were archived: see spark_archive."""
QUIET = ("-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr")
"""An archive that does not fit is passed over, and without a word on stdout, which belongs to the job."""


def driver_options() -> list[str]:
    return [*QUIET, f"-XX:SharedArchiveFile={ARCHIVE}"] if ARCHIVE.exists() else []
