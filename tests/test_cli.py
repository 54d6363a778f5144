"""The `lode` command: its help costs no import of what a command needs, and names every command there is."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.core import TyperGroup

from pipeline_lib.cli import app
from pipeline_lib.commands import Lazy


def paths(group: TyperGroup, *before: str) -> Iterator[tuple[tuple[str, ...], Lazy]]:
    for name, member in group.commands.items():
        if isinstance(member, TyperGroup):
            yield from paths(member, *before, name)
        else:
            assert isinstance(member, Lazy)
            yield (*before, name), member


@pytest.mark.parametrize(("words", "member"), [pytest.param(*each, id=" ".join(each[0])) for each in paths(app)])
def test_a_command_is_the_one_that_its_help_describes(
    words: tuple[str, ...], member: Lazy, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app([*words, "--help"], prog_name="lode")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Usage: lode {' '.join(words)} " in shown
    assert member.help
    assert " ".join(member.help.split())[:60] in shown


def test_the_help_imports_no_client() -> None:
    script = "import sys, pipeline_lib.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyspark", "kafka", "boto3", "happybase", "scipy", "matplotlib", "pyarrow"} & set(loaded)
