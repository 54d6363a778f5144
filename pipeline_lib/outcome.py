"""How a job ended whose driver ran on a node of the cluster: left in the archive's bucket, and taken from there.

A driver's output stays on its node, and spark-submit ends with 0 or 1 whatever the driver ended with: the result and
the exit code of the contract (errors.py) need a way of their own.
"""

import json
import uuid
from dataclasses import asdict, dataclass

from pipeline_lib.config import S3Settings
from pipeline_lib.errors import LodeError
from pipeline_lib.log import fact

VARIABLE = "LODE_OUTCOME"
"""In a driver's environment: under which name it leaves its outcome."""


@dataclass(frozen=True)
class Outcome:
    """What a job would have shown, and its exit code."""

    exit_code: int
    output: str
    error: str


def new_name() -> str:
    return uuid.uuid4().hex


def leave(settings: S3Settings, name: str, outcome: Outcome) -> None:
    """Stores it; where S3 does not answer the job's own end stands, and only what it would have shown is lost."""
    from pipeline_lib.io.s3 import S3  # here: `lode --help` needs no client

    try:
        S3(settings).put(_key(name), json.dumps(asdict(outcome)).encode())
    except LodeError as error:
        fact("outcome_not_left", exit_code=outcome.exit_code, error=error)


def take(settings: S3Settings, name: str) -> Outcome | None:
    """The outcome of that name, which is gone afterwards; None where the driver left none."""
    from pipeline_lib.io.s3 import S3

    store = S3(settings)
    found = store.get(_key(name))
    if found is None:
        return None
    store.delete(_key(name))
    return Outcome(**json.loads(found))


def _key(name: str) -> str:
    return f"outcomes/{name}.json"
