"""What the jobs of every replay share: their options, and planning or carrying out."""

from typing import Annotated

import typer

from pipeline_lib.config import Config
from pipeline_lib.errors import DataMissing, TargetRefuses
from pipeline_lib.output import print_result
from pipeline_lib.replay import run
from pipeline_lib.replay.plan import By as ByTime
from pipeline_lib.replay.plan import ReplayRequest

ReplaySince = Annotated[str, typer.Option("--since", help="Start of the span (inclusive), UTC.")]
ReplayUntil = Annotated[str, typer.Option("--until", help="End of the span (exclusive), UTC.")]
By = Annotated[ByTime, typer.Option(help="The record's timestamp, or the time of any event in it.")]
Partitions = Annotated[list[int] | None, typer.Option(help="Only this partition; can be repeated.")]
TopicId = Annotated[str | None, typer.Option(help="Which topic of this name, where it was recreated.")]
Execute = Annotated[str | None, typer.Option(metavar="DIGEST", help="Carry out the plan with this digest.")]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave out corrupt segments and list them.")]


def replay(
    config: Config, request: ReplayRequest, sink: run.Sink, digest: str | None, skip_corrupt: bool, as_json: bool
) -> None:
    """Prints the plan, or carries out the one with this digest and prints its entry.

    Raises:
        TargetRefuses: the target would lose or change records.
        VerificationFailed: a segment is corrupt, or the target differs afterwards.
        DataMissing: corrupt segments were left out, as was asked for, or records that the target does not take.
    """
    if digest is None:
        plan = run.plan(config, request, sink)
        problems = sink.problems(plan)
        print_result(run.summary(plan, sink.describe(plan), problems), as_json)
        if problems:
            raise TargetRefuses("\n".join(problems))
        return
    entry = run.execute(config, request, sink, digest, skip_corrupt)
    print_result({name: value for name, value in entry.items() if name not in ("plan", "format", "begun")}, as_json)
    run.check_entry(entry)
    if entry["corrupt"]:
        raise DataMissing(f"corrupt segments were left out: {', '.join(entry['corrupt'])}")
    if entry.get("refused"):
        some = ", ".join(entry["refused_examples"])
        raise DataMissing(f"{entry['refused']} records were left out, which the target refuses for their size: {some}")
