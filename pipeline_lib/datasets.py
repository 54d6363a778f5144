"""Where each dataset of the flow is."""

from pipeline_lib.config import HdfsSettings


def events_path(settings: HdfsSettings, topic: str) -> str:
    """The events table of a topic: see landing."""
    return f"{settings.url.rstrip('/')}{settings.root.rstrip('/')}/landing/{topic}"


def analysis_path(settings: HdfsSettings, analysis: str) -> str:
    """The table of an analysis' results: see analysis.results."""
    return f"{settings.url.rstrip('/')}{settings.root.rstrip('/')}/analysis/{analysis}"


def traffic_path(settings: HdfsSettings, analysis: str) -> str:
    """The table of an analysis' traffic: see analysis.traffic. Not below the results' table: a clean-up of that one
    would take its files for files of no commit."""
    return f"{settings.url.rstrip('/')}{settings.root.rstrip('/')}/traffic/{analysis}"


def sessions_path(settings: HdfsSettings, analysis: str) -> str:
    """The table of an analysis' sessions: see analysis.sessions."""
    return f"{settings.url.rstrip('/')}{settings.root.rstrip('/')}/sessions/{analysis}"


def replay_key(replay_id: str) -> str:
    """The ledger entry of a replay, in the archive's bucket."""
    return f"replays/{replay_id}.json"
