"""Commands that are imported when they are called: all of them together take two seconds, more than most of them do."""

import ast
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline_lib.job import ROOT, submitted


class Lazy(TyperCommand):
    """Stands for a command in the help; what is called is the command itself."""

    def __init__(self, module: str, name: str, load: Callable[[Any], Any], described: str = "") -> None:
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        super().__init__(None, help=_described(path, described or name))
        self._found = module, name, load

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        module, name, load = self._found
        return load(getattr(import_module(module), name)).make_context(info_name, args, parent, **extra)


def command(module: str, function: str = "main") -> Lazy:
    """A function of a module as a command."""
    return Lazy(module, function, _as_command)


def commands(module: str) -> Lazy:
    """The typer application `app` of a module as a group of commands, described by its callback `options`."""
    return Lazy(module, "app", typer.main.get_command, "options")


def job(words: str, script: str) -> Lazy:
    """A job of jobs/ under spark-submit; `words` are those behind `lode`, such as "replay kafka"."""
    return Lazy(f"jobs.{script}", "main", lambda main: _as_command(submitted(words, f"{script}.py", main)))


def group(text: str, members: Mapping[str, TyperCommand | TyperGroup]) -> TyperGroup:
    """Commands under one word; without one of them, their help."""
    for name, member in members.items():
        member.name = name
    return TyperGroup(help=text, commands=dict(members), no_args_is_help=True)


def _as_command(function: Callable[..., Any]) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app)


def _described(path: Path, name: str) -> str:
    """The docstring of a module's function, without importing it."""
    found = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(node) or "" for node in found if node.name == name)
