"""What a table's log is read with waits for nobody without end."""

import socket

import pytest

from pipeline_lib.errors import ServerUnavailable
from pipeline_lib.io import delta_files


def test_a_silent_namenode_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_files, "ANSWER_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"hdfs://127.0.0.1:{silent.getsockname()[1]}/lode/events"
        with pytest.raises(ServerUnavailable, match=f"table {url}: HDFS did not answer within 2 s"):
            delta_files.live_files(url)
