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


def on_deadline(context: dict[str, Any]) -> None:
    """A run is not done when it should be. Here Airflow gives the run as its REST API names it."""
    run = context["dag_run"]
    _send({"level": "page", "summary": "a run is late", "dag": run["dag_id"], "task": None, "run": run["dag_run_id"]})


def send_alert(level: str, summary: str, context: Any) -> None:
    """Sends what happened to a task."""
    task = context["ti"]
    _send({"level": level, "summary": summary, "dag": task.dag_id, "task": task.task_id, "run": task.run_id})


def _send(what: dict[str, str | None]) -> None:
    """With a link to the runbook. A webhook that is away changes nothing about the task."""
    alert = {**what, "runbook": RUNBOOK}
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
