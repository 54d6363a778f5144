"""The file that holds a deployment's secrets, where they do not come from the environment."""

import stat
import tomllib
from collections.abc import Collection
from pathlib import Path

from pipeline_lib.errors import ConfigError


def read_secrets(path: Path, names: Collection[str]) -> dict[str, str]:
    """The secrets in a TOML file, by their variables' names (NAME = "VALUE" a line).

    Args:
        names: those that there are.

    Raises:
        ConfigError: others can read the file, or it holds something else.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"{path}: the file of the secrets cannot be read: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path}: holds secrets and is open to others (mode {mode:o}): chmod 600 it")
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError):  # without its text, which holds secrets
        raise ConfigError(f'{path}: is no TOML file of secrets, NAME = "VALUE" a line') from None
    if wrong := [name for name, value in values.items() if name not in names or not isinstance(value, str)]:
        raise ConfigError(f"{path}: {wrong[0]}: no secret of that name; there are {', '.join(names)}")
    return values
