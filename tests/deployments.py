"""A deployment of a test's own on the session's servers."""

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.config import Config
from pipeline_lib.datasets import replay_key
from pipeline_lib.io.s3 import S3


@dataclass(frozen=True)
class Deployment:
    """A configuration file of the test's own, with topics of its own."""

    path: Path
    config: Config

    def declare(self, name: str, toml: str = 'codec = "raw"') -> str:
        """Declares a topic with the given settings under a unique name; returns the name."""
        topic = f"{name}-{uuid.uuid4().hex[:8]}"
        (self.config.topics / f"{topic}.toml").write_text(f'name = "{topic}"\n{toml}\n')
        return topic

    def lode(self, *arguments: str, check: int | None = 0, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Runs `lode`; by default its exit code must be 0, with check=None any is fine."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout, check=False)
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ledger_entry(self, digest: str) -> dict[str, Any]:
        """What the ledger has of a replay, but for what is another in each: its id and times, what it found at its begin,
        and the id of a topic that it wrote to."""
        text = S3(self.config.s3).get(replay_key(digest))
        assert text is not None
        entry: dict[str, Any] = json.loads(text)
        entry["plan"]["target"].pop("topic_id", None)
        return {name: value for name, value in entry.items() if name not in ("id", "started", "finished", "begun")}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pipeline_lib", *arguments, "--config", str(self.path)]
