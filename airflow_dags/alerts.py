"""Telling people: a JSON POST to the webhook of the connection `lode_alerts`, and a line in the log in any case."""

import json
import logging
import os
import urllib.request
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

RUNBOOK = os.environ.get("LODE_RUNBOOK", "docs/operations.md")
CONNECTION = "lode_alerts"

log = logging.getLogger(__name__)


def on_task_failure(context: Any) -> None:
    """A task has failed for good: its last try did, or another try could not help."""
    send_alert("page", str(context.get("exception") or "failed"), context)


def on_deadline(**values: Any) -> None:
    """A run is not done when it should be."""
    send_alert("page", "a run is late", values.get("context") or values)


def send_alert(level: str, summary: str, context: Any) -> None:
    """Sends what happened with a link to its runbook. A webhook that is away changes nothing about the task."""
    task, run = context.get("ti"), context.get("dag_run")
    alert = {
        "level": level,
        "summary": summary,
        "dag": getattr(task, "dag_id", None) or _of(run, "dag_id"),
        "task": getattr(task, "task_id", None),
        "run": getattr(task, "run_id", None) or _of(run, "run_id"),
        "runbook": RUNBOOK,
    }
    log.error("alert %s", json.dumps(alert))
    try:
        webhook = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return
    try:
        url = webhook.extra_dejson["url"]  # in the extra, as a webhook's URL is a secret
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(alert).encode(), headers), timeout=10):
            pass
    except (OSError, KeyError, ValueError) as error:
        log.error("the alert was not sent: %s", type(error).__name__)  # its text may hold the URL


def _of(run: Any, name: str) -> Any:
    return run.get(name) if isinstance(run, dict) else getattr(run, name, None)
