"""The servers' jars: fetched once, checked against jars.lock, kept in the user's cache.

A jar is stored under its own sha256, and gets its name only after its bytes were checked: a jar that is there is a jar
that is right, so a start reads no 600 MB to find that out, and a killed download leaves nothing that looks like a jar.
"""

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Protocol

import platformdirs
import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from pipeline_lib.errors import ConfigError, LodeError

LOCK = Path(__file__).with_name("jars.lock")
_CONNECTIONS = 8


class _Advance(Protocol):
    def __call__(self) -> None: ...


def fetch(sets: Iterable[str]) -> dict[str, list[Path]]:
    """The jars of each set, in class path order; downloads those that the cache does not hold."""
    locked = read_lock()
    wanted = list(dict.fromkeys(sets))
    if unknown := [name for name in wanted if name not in locked]:
        raise ConfigError(f"no jar set {', '.join(unknown)}; there are {', '.join(locked)}")
    hashes = {coordinate: sha256 for name in wanted for coordinate, sha256 in locked[name].items()}
    missing = {coordinate: sha256 for coordinate, sha256 in hashes.items() if not _is_cached(coordinate, sha256)}
    if missing:
        _download_all(missing)
    return {name: [cached_path(*jar) for jar in locked[name].items()] for name in wanted}


@cache
def read_lock() -> dict[str, dict[str, str]]:
    """jars.lock: set -> coordinate (group:artifact:version[:classifier]) -> sha256."""
    locked: dict[str, dict[str, str]] = json.loads(LOCK.read_text())
    return locked


def cache_root() -> Path:
    """The user's cache of all that is fetched or made once: LODE_CACHE, else the system's place for caches."""
    return Path(os.environ.get("LODE_CACHE") or platformdirs.user_cache_dir("lode")).expanduser().resolve()


def cached_path(coordinate: str, sha256: str) -> Path:
    """Where the cache keeps this jar."""
    return cache_root() / "jars" / sha256[:16] / _file_name(coordinate)


def base_url() -> str:
    """Where jars come from: LODE_JARS_URL (http, https or file, laid out as Maven does), else Maven Central.

    Maven Central's address is not written here. Spark ships Ivy for its own `--packages`, and Ivy's IBiblioResolver
    holds the address as a constant: reading it there means that Lode downloads from where Spark itself would.
    """
    if configured := os.environ.get("LODE_JARS_URL"):
        return configured.rstrip("/") + "/"
    found = find_spec("pyspark")
    if found is None or found.origin is None:
        raise LodeError("pyspark is not installed, and LODE_JARS_URL is not set: no place to fetch jars from")
    for jar in sorted((Path(found.origin).parent / "jars").glob("ivy-*.jar")):
        with zipfile.ZipFile(jar) as archive:
            constants = archive.read("org/apache/ivy/plugins/resolver/IBiblioResolver.class")
        if address := re.search(rb"https://[\w.\-/]+/maven2/", constants):
            return address.group().decode()
    raise LodeError("the address of Maven Central was not found in Spark's Ivy: set LODE_JARS_URL")


def _file_name(coordinate: str) -> str:
    return "-".join(coordinate.split(":")[1:]) + ".jar"


def _remote_path(coordinate: str) -> str:
    group, artifact, version = coordinate.split(":")[:3]
    return f"{group.replace('.', '/')}/{artifact}/{version}/{_file_name(coordinate)}"


def _is_cached(coordinate: str, sha256: str) -> bool:
    try:
        return cached_path(coordinate, sha256).stat().st_size > 0
    except FileNotFoundError:
        return False


def _download_all(missing: Mapping[str, str]) -> None:
    base = base_url()
    # Pooch announces every file; the progress bar says it once for all of them.
    pooch.get_logger().setLevel(logging.WARNING)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("server jars", total=len(missing))
        _in_parallel(base, missing, lambda: progress.advance(task))


def _in_parallel(base: str, missing: Mapping[str, str], advance: _Advance) -> None:
    pool = ThreadPoolExecutor(_CONNECTIONS)
    try:
        for _ in pool.map(lambda jar: _download(base, *jar), missing.items()):
            advance()
    finally:
        # On the first failure, or Ctrl-C, what is queued is dropped: the next call goes on from what is complete.
        pool.shutdown(wait=True, cancel_futures=True)


def _download(base: str, coordinate: str, sha256: str) -> None:
    path = cached_path(coordinate, sha256)
    try:
        _retrieve(base + _remote_path(coordinate), sha256, path)
    except ValueError as error:
        raise LodeError(f"{coordinate}: the downloaded jar is not the one in jars.lock (sha256 differs)") from error
    except (requests.RequestException, OSError) as error:
        raise LodeError(f"{coordinate} could not be downloaded: {type(error).__name__}: {error}") from error


def _passes(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, requests.HTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)


@retry(
    retry=retry_if_exception(_passes),
    stop=stop_after_attempt(4),
    wait=wait_exponential(max=8),
    reraise=True,
)
def _retrieve(url: str, sha256: str, path: Path) -> None:
    """Pooch writes to a temporary name beside the target, checks the hash, and renames."""
    downloader = _copy if url.startswith("file://") else pooch.HTTPDownloader(timeout=60)
    pooch.retrieve(url, known_hash=f"sha256:{sha256}", path=path.parent, fname=path.name, downloader=downloader)


def _copy(url: str, output_file: str | IO[bytes], _pooch: Any) -> None:
    """Pooch's downloader interface for a folder: a mirror on a disk, where there is no network at all."""
    with open(url.removeprefix("file://"), "rb") as source:
        if isinstance(output_file, str):
            with open(output_file, "wb") as target:
                shutil.copyfileobj(source, target)
        else:
            shutil.copyfileobj(source, output_file)
