"""What every job shares: its options, how it ends, and the spark-submit line that starts it."""

import inspect
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline_lib import log
from pipeline_lib.config import Config, load_config
from pipeline_lib.errors import LodeError
from pipeline_lib.stack.jars import fetch
from pipeline_lib.stack.spark_java import spark_java_home
from pipeline_lib.stack.spark_options import driver_options

ROOT = Path(__file__).parents[1]

TopicName = Annotated[str, typer.Argument(help="A topic that conf/topics declares.")]
ConfigPath = Annotated[Path | None, typer.Option("--config", help="The deployment; default: conf/local.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON value.")]
Until = Annotated[str | None, typer.Option(help="Read records up to this time (exclusive); default: now.")]
MaxRecords = Annotated[int | None, typer.Option(min=1, help="Offsets a batch.")]
MaxBytes = Annotated[int | None, typer.Option(min=1, help="Bytes a batch, by the broker's average record size.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where Kafka lost records, instead of recording the gap.")]


def run(main: Callable[..., Any]) -> None:
    """Runs a job's main as a program and ends it with the exit code of the contract (errors.py)."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    with open(os.environ[RESULT], "a") if RESULT in os.environ else nullcontext(sys.stdout) as sys.stdout:
        run_app(app)


def run_app(app: Callable[[], Any]) -> None:
    log.configure()
    try:
        app()
    except LodeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def submitted(command: str, script: str, main: Callable[..., Any]) -> Callable[..., None]:
    """A command with the options of a job's main, which starts the job under spark-submit or prints the line for it.

    Args:
        command: the words behind `lode`, such as "replay kafka".
        script: the job's file.
        main: the job's main; its options are checked before a JVM is started.
    """

    def submit(**options: Any) -> None:
        config = load_config(options.get("config"))
        line = submit_command(config, script, [word for word in sys.argv[1 + len(command.split()) :] if word != PRINT])
        if options["print_command"]:
            print(shlex.join(line))
            return
        sys.exit(_run(line, submit_environment(config)))

    parameters = inspect.signature(main).parameters.values()
    option = inspect.Parameter(
        "print_command",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option(PRINT, help="Print the spark-submit line instead of running it.")],
    )
    submit.__signature__ = inspect.Signature([*parameters, option])  # type: ignore[attr-defined]
    submit.__doc__ = main.__doc__
    return submit


PRINT = "--print-command"
RESULT = "LODE_RESULT_FILE"


def _run(line: Sequence[str], environment: dict[str, str]) -> int:
    """Runs the line and returns its exit code. spark-submit pours a Python job's stderr into its stdout, so that the
    result takes a way of its own: a file, which is printed when the job has ended."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        own = {RESULT: str(result), "COLUMNS": str(shutil.get_terminal_size().columns)}
        own |= {"FORCE_COLOR": "1"} if sys.stdout.isatty() else {}
        code = subprocess.run(line, env=environment | own, stdout=sys.stderr, check=False).returncode
        if result.exists():
            sys.stdout.write(result.read_text())
    return code


def submit_command(config: Config, script: str, arguments: Sequence[str]) -> list[str]:
    """The spark-submit line of a job. It holds no secret: the job reads those itself."""
    jars = config.spark.jars or [str(path) for path in fetch(["spark"])["spark"]]
    return [
        str(Path(sys.executable).with_name("spark-submit")),
        "--master", config.spark.master,
        "--driver-memory", config.spark.driver_memory,
        "--properties-file", str(ROOT / "conf" / "spark-defaults.conf"),
        "--driver-java-options", f"-Dlog4j2.configurationFile={ROOT / 'conf' / 'log4j2.properties'}",
        "--jars", ",".join(jars),
        str(ROOT / "jobs" / script),
        *arguments,
    ]  # fmt: skip


def submit_environment(config: Config) -> dict[str, str]:
    """What the line needs around it: a Java and this Python with this library; on one machine, loopback only."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"JAVA_HOME": str(spark_java_home()), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": path}
    local = {}
    if config.spark.master.startswith("local"):
        options = [os.environ.get("SPARK_SUBMIT_OPTS", ""), shlex.join(driver_options())]
        local = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_SUBMIT_OPTS": " ".join(options).strip()}
    return {**os.environ, **own, **local}
