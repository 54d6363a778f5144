"""What every job shares: its options, how it ends, and the spark-submit line that starts it."""

import inspect
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pipeline_lib import log, outcome
from pipeline_lib.config import SECRETS_FILE, Config, load_config
from pipeline_lib.engines import CONFIGURATION, driver_environment, engine_arguments, unpacked
from pipeline_lib.errors import ConfigError, LodeError
from pipeline_lib.log import fact
from pipeline_lib.package import DEPLOYMENT, LOG_SETTINGS, check_package
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
    if name := os.environ.get(outcome.VARIABLE):
        _run_in_cluster(app, name)
    with open(os.environ[RESULT], "a") if RESULT in os.environ else nullcontext(sys.stdout) as sys.stdout:
        run_app(app)


def _run_in_cluster(app: typer.Typer, name: str) -> NoReturn:
    """The same, where nobody sees this program's output and exit code: they are left as its outcome."""
    code, error = 0, ""
    log.configure()
    with redirect_stdout(io.StringIO()) as output:
        try:
            app(standalone_mode=False)
        except LodeError as failed:
            code, error = failed.exit_code, str(failed)
        except Exception as failed:
            code, error = 1, f"{type(failed).__name__}: {failed}"
            traceback.print_exc()
    outcome.leave(load_config().s3, name, outcome.Outcome(code, output.getvalue(), error))
    sys.exit(code)


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
        if config.spark.package:
            check_package(config, config.spark.package)
        run_line = _run_in_cluster_mode if config.spark.in_cluster else _run
        sys.exit(run_line(line, config))

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


def _run(line: Sequence[str], config: Config) -> int:
    """Runs the line and returns its exit code. spark-submit pours a Python job's stderr into its stdout, so that the
    result takes a way of its own: a file, which is printed when the job has ended."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        own = {RESULT: str(result), "COLUMNS": str(shutil.get_terminal_size().columns)}
        own |= {"FORCE_COLOR": "1"} if sys.stdout.isatty() else {}
        code = subprocess.run(line, env=submit_environment(config) | own, stdout=sys.stderr, check=False).returncode
        if result.exists():
            sys.stdout.write(result.read_text())
    return code


def _run_in_cluster_mode(line: Sequence[str], config: Config) -> int:
    """Runs the line, whose driver runs elsewhere; prints what the driver left and returns the driver's exit code."""
    name = outcome.new_name()
    asked = [line[0], *driver_environment(config.spark, {outcome.VARIABLE: name}), *line[1:]]
    code = subprocess.run(asked, env=submit_environment(config), stdout=sys.stderr, check=False).returncode
    if (left := outcome.take(config.s3, name)) is None:
        if code:
            raise LodeError(
                f"the driver ended (spark-submit: {code}) and left no outcome: look at its log in the cluster"
            )
        fact("done", note="the driver ended well and could not leave its result: S3 did not answer")
        return 0
    sys.stdout.write(left.output)
    if left.error:
        print(f"error: {left.error}", file=sys.stderr)
    return left.exit_code


def submit_command(config: Config, script: str, arguments: Sequence[str]) -> list[str]:
    """The spark-submit line of a job. It holds no secret: the job reads those itself."""
    spark = config.spark
    jars = spark.jars or [str(path) for path in fetch(["spark"])["spark"]]
    logs = unpacked(CONFIGURATION) if spark.package and spark.in_cluster else f"{spark.home or ROOT}/conf"
    return [
        str(Path(sys.executable).with_name("spark-submit")),
        *engine_arguments(spark),
        *(_cluster_driver(config) if spark.in_cluster else ()),
        "--properties-file", str(ROOT / "conf" / "spark-defaults.conf"),
        "--driver-java-options", f"-Dlog4j2.configurationFile={logs}/{LOG_SETTINGS}",
        "--jars", ",".join(jars),
        f"local://{spark.home}/jobs/{script}" if spark.home else str(ROOT / "jobs" / script),
        *(_without_config(arguments) if spark.in_cluster else arguments),
    ]  # fmt: skip


def _cluster_driver(config: Config) -> list[str]:
    """How a driver on a node of the cluster comes to its deployment and its secrets."""
    spark, files = config.spark, []
    shipped = f"{unpacked(CONFIGURATION)}/{DEPLOYMENT}"
    variables = {"LODE_CONFIG": shipped if spark.package else f"{spark.home}/conf/deployment.toml"}
    secrets = os.environ.get(SECRETS_FILE) or config.secrets
    if config.stack:  # its nodes are on this machine
        variables |= {"LODE_STACK_HOME": str(config.stack.resolve()), "SPARK_LOCAL_IP": "127.0.0.1"}
    elif secrets and spark.package:  # into the application's own folder, which its user alone can read
        files = ["--files", str(secrets)]
        variables |= {SECRETS_FILE: Path(secrets).name}
    elif spark.package:
        raise ConfigError(
            "deploy_mode = cluster: the driver inherits no environment; put the secrets into a file that only you can"
            ' read, NAME = "VALUE" a line, and name it with `secrets = "PATH"` or LODE_SECRETS'
        )
    return [*files, *driver_environment(spark, variables)]


def _without_config(arguments: Sequence[str]) -> list[str]:
    """The deployment's file is another one on the driver's node; LODE_CONFIG names it there."""
    words = iter(arguments)
    kept = []
    for word in words:
        if word == "--config":
            next(words, None)
        elif not word.startswith("--config="):
            kept.append(word)
    return kept


def submit_environment(config: Config) -> dict[str, str]:
    """What the line needs around it: a Java, this Python with this library, and Hadoop's configuration; loopback alone
    where all is on one machine."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"JAVA_HOME": str(spark_java_home()), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": path}
    own |= {"SPARK_LOCAL_IP": "127.0.0.1"} if config.spark.local or config.stack else {}
    own |= {"HADOOP_CONF_DIR": str(config.spark.hadoop_conf)} if config.spark.hadoop_conf else {}
    if config.spark.local:
        options = [os.environ.get("SPARK_SUBMIT_OPTS", ""), shlex.join(driver_options())]
        own["SPARK_SUBMIT_OPTS"] = " ".join(options).strip()
    return {**os.environ, **own}
