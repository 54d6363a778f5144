"""The one operator of all DAGs: runs a job of jobs/ under spark-submit and ends as its exit code says."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_dags.alerts import send_alert

ROOT = Path(__file__).resolve().parents[1]

DATA_MISSING, LOST_RACE, VERIFICATION_FAILED = 10, 11, 12
NEVER_BETTER = {2: "wrong usage or configuration", 13: "the target refuses"}
"""Exit codes (docs/operations.md) of jobs that another try cannot help."""


class LodeSubmitHook(SparkSubmitHook):
    """Submits with the words that the connection holds, which are those that `lode ... --print-command` prints."""

    def _build_spark_common_args(self) -> list[str]:
        return [*self.get_connection(self._conn_id).extra_dejson["arguments"], "--name", str(self._name)]

    def run(self, application: str) -> tuple[int, dict[str, Any]]:
        """The exit code of the job and what it printed; the job, its library and the DAG are of one version."""
        extra = self.get_connection(self._conn_id).extra_dejson
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result"
            own = {"LODE_RESULT_FILE": str(result), "PYTHONPATH": str(ROOT)}
            path = os.pathsep.join([extra["bin"], os.environ["PATH"]])
            try:
                self.submit(application, cwd=ROOT, env={**os.environ, **extra["environment"], "PATH": path, **own})
            except AirflowException:
                # The hook tells the exit code in the text of its exception only; its process tells it as a number.
                if self._submit_sp is None or not self._submit_sp.returncode:
                    raise
            lines = result.read_text().splitlines() if result.exists() else []
        return self._submit_sp.returncode, json.loads(lines[-1]) if lines else {}


class LodeJobOperator(SparkSubmitOperator):
    """One job. Its result is the XCom; its exit code decides how the task ends.

    Args:
        fail_when_data_missing: fail on exit code 10, instead of succeeding with an alert.
    """

    def __init__(self, *, fail_when_data_missing: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.fail_when_data_missing = fail_when_data_missing

    def _get_hook(self) -> LodeSubmitHook:
        return LodeSubmitHook(
            conn_id=self._conn_id, application_args=[*self.application_args, "--json"], name=self.name
        )

    def execute(self, context: Any) -> dict[str, Any]:
        self._hook = self._get_hook()
        code, result = self._hook.run(self.application)
        if code == LOST_RACE:
            # The other run may have read less far than this one was asked to: what it left is done now.
            self.log.warning("lost to a concurrent run; running once more for what it left")
            code, result = self._hook.run(self.application)
        return self._end(code, result, context)

    def _end(self, code: int, result: dict[str, Any], context: Any) -> dict[str, Any]:
        if code in NEVER_BETTER:
            raise AirflowFailException(f"exit code {code}: {NEVER_BETTER[code]}; the job's `error:` line says what")
        if code == VERIFICATION_FAILED:
            raise AirflowFailException(f"exit code {code}: verification found a difference: {result}")
        if code == DATA_MISSING:
            if self.fail_when_data_missing:
                raise AirflowFailException(f"exit code {code}: done, but data is missing: {result}")
            send_alert("warning", "done, but data is missing", context)
        elif code == LOST_RACE:
            self.log.warning("lost to a concurrent run again: a success, the other run did the work")
        elif code:
            raise AirflowException(f"exit code {code}: failed, nothing visible changed")
        return {**result, "exit_code": code}
