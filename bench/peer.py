"""The strongest peer: OSO's kafka-backup (Rust crate kafka-backup-core 0.25.2), where a build of it is at hand.

BENCH_OSO names a program that runs the crate's engine as `PROGRAM backup|restore CONFIG.yaml`. It is not part of Lode.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pipeline_lib.config import Config

BACKUP = "bench"


def harness() -> Path | None:
    """The peer's program, or None where there is none."""
    return Path(os.environ["BENCH_OSO"]) if "BENCH_OSO" in os.environ else None


def backup(program: Path, config: Config, topic: str) -> None:
    """Archives the topic to the same S3 server, compressed as Lode does (zstd at level 3)."""
    options = {
        "compression": "zstd",
        "compression_level": 3,
        "stop_at_current_offsets": True,
        "segment_max_bytes": 64 << 20,
    }
    _run(program, "backup", config, {"source": _kafka(config, topic), "backup": options})


def restore(program: Path, config: Config, topic: str, target: str) -> None:
    """Replays the peer's archive to another topic."""
    _run(program, "restore", config, {"target": _kafka(config, topic), "restore": {"topic_mapping": {topic: target}}})


def _kafka(config: Config, topic: str) -> dict[str, Any]:
    return {"bootstrap_servers": [config.kafka.bootstrap_servers], "topics": {"include": [topic]}}


def _run(program: Path, mode: str, config: Config, part: dict[str, Any]) -> None:
    storage = {"backend": "s3", "bucket": config.s3.bucket, "region": config.s3.region, "prefix": "peer",
               "endpoint": config.s3.endpoint, "path_style": True, "allow_http": True}  # fmt: skip
    keys = {
        "AWS_ACCESS_KEY_ID": config.s3.access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": config.s3.secret_key.get_secret_value(),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"mode": mode, "backup_id": BACKUP, "storage": storage, **part}, file)  # JSON is YAML
        file.flush()
        subprocess.run([program, mode, file.name], env={**os.environ, **keys}, check=True)
