"""The ledger on the terminal: at 120 columns everything stands on one line."""

from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from pipeline_lib.ledger.reconcile import HOUR_MS, Ledger, Row, totals
from pipeline_lib.output import print_rows

_COUNTS = ("kafka", "landed", "quarantined", "archived", "duplicates", "late")
_STYLES = {"yes": "green", "expired": "cyan", "behind": "yellow", "gap": "magenta", "no": "bold red"}


def print_ledger(ledger: Ledger) -> None:
    several = len({row.topic_id for row in ledger.rows}) > 1
    table = Table(title=f"{ledger.topic}: records by hour of their Kafka timestamp (UTC)", title_justify="left")
    table.add_column("hour", no_wrap=True)
    if several:
        table.add_column("topic id", no_wrap=True)
    for name in ("parti-\ntion", "kafka", "landed", "quaran-\ntined", "archived", "dupli-\ncates", "late"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("agrees", no_wrap=True)
    before = None
    for row in ledger.rows:
        hour = datetime.fromtimestamp(row.hour * HOUR_MS / 1000, UTC).strftime("%Y-%m-%d %H:00")
        if before not in (None, row.hour):
            table.add_section()
        names = [hour if row.hour != before else "", *([row.topic_id[:8]] if several else []), str(row.partition)]
        table.add_row(*names, *_cells(row))
        before = row.hour
    table.add_section()
    table.add_row("total", *([""] if several else []), "", *_cells(totals(ledger.rows)), style="bold")
    Console().print(table)
    print_rows(
        "Gaps: offsets that Kafka no longer had when they were to be read",
        ["stage", "topic id", "partition", "since", "until"],
        [[str(gap[name]) for name in ("stage", "topic_id", "partition", "since", "until")] for gap in ledger.gaps],
        right=["partition", "since", "until"],
    )
    names = [name for name in ("id", "status", "sink", "span", "records", "missing", "target", "verified")
             if any(name in replay for replay in ledger.replays)]  # fmt: skip
    print_rows("Replays", names, [[str(replay.get(name, "-")) for name in names] for replay in ledger.replays])
    for note in ledger.notes:
        Console().print(f"note: {note}", highlight=False)


def _cells(row: Row) -> list[str]:
    counts = ["-" if (value := getattr(row, name)) is None else f"{value:,}" for name in _COUNTS]
    return [*counts, f"[{_STYLES[row.agrees]}]{row.agrees}[/]"]
