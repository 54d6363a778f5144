"""The stack with real servers: it serves, keeps data, tells the truth about what died, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError
from stack_clients import consume, produce, read_file, s3_client, write_file

from pipeline_lib.errors import ConfigError, LodeError
from pipeline_lib.stack import state
from pipeline_lib.stack.stack import Stack, Status

_UP = """
import sys
from pathlib import Path
from pipeline_lib.stack.stack import Stack
Stack(Path(sys.argv[1])).up([sys.argv[2]])
"""


def status(stack: Stack, name: str) -> Status:
    return next(server for server in stack.status() if server.name == name)


def pids(stack: Stack) -> dict[str, int]:
    return {server.name: server.pid for server in stack.status() if server.pid is not None}


def start_up(stack: Stack, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _UP, str(stack.home), name])


def test_data_and_addresses_survive_down_and_up(stack: Stack) -> None:
    before = stack.endpoints()
    produce(stack, "kept", [b"one", b"two"])
    write_file(stack, "/kept", b"three")
    s3_client(stack).create_bucket(Bucket="kept")
    s3_client(stack).put_object(Bucket="kept", Key="k", Body=b"four")
    ended = pids(stack)

    stack.down()
    assert not [pid for pid in ended.values() if psutil.pid_exists(pid)]
    assert {server.state for server in stack.status()} == {"stopped"}

    assert stack.up(["kafka", "hdfs", "s3"]) == before
    assert consume(stack, "kept", 2) == [b"one", b"two"]
    assert read_file(stack, "/kept") == b"three"
    assert s3_client(stack).get_object(Bucket="kept", Key="k")["Body"].read() == b"four"
    write_file(stack, "/writable-at-once", b"no safe mode is waited for")


def test_up_starts_nothing_that_is_up(stack: Stack) -> None:
    before = pids(stack)
    stack.up(["kafka", "hdfs", "s3"])
    assert pids(stack) == before


def test_s3_refuses_a_wrong_key_and_no_secret_is_in_the_arguments(stack: Stack) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3_client(stack, "wrong").list_buckets()
    secret = json.loads((stack.home / "s3.secret").read_text())["secret_key"]
    assert (stack.home / "s3.secret").stat().st_mode & 0o077 == 0
    assert (stack.home / "servers/s3/conf/s3proxy.properties").stat().st_mode & 0o077 == 0
    process = psutil.Process(pids(stack)["s3"])
    assert secret not in " ".join([*process.cmdline(), *process.environ().values()])


def test_a_killed_server_shows_and_up_brings_it_back(stack: Stack) -> None:
    others = {name: pid for name, pid in pids(stack).items() if name != "s3"}
    stack.kill("s3")
    died = status(stack, "s3")
    assert (died.state, died.exit_code) == ("died", -signal.SIGKILL)
    with pytest.raises(LodeError, match="s3 is not running"):
        stack.kill("s3")
    stack.up(["s3"])
    assert status(stack, "s3").state == "up"
    assert others.items() <= pids(stack).items()
    before = pids(stack)["s3"]
    stack.restart("s3")
    assert pids(stack)["s3"] != before


def test_only_loopback_is_listened_on(stack: Stack) -> None:
    listening = [
        connection.laddr.ip
        for pid in pids(stack).values()
        for connection in psutil.Process(pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 8
    assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_second_stack_runs_beside(stack: Stack, empty_stack: Stack) -> None:
    empty_stack.up(["s3"])
    s3_client(empty_stack).create_bucket(Bucket="beside")
    with pytest.raises(ClientError):
        s3_client(stack).head_bucket(Bucket="beside")
    empty_stack.down()
    assert status(stack, "s3").state == "up"


def test_two_ups_at_once_start_one_server(empty_stack: Stack) -> None:
    running = [start_up(empty_stack, "s3") for _ in range(2)]
    assert [process.wait(90) for process in running] == [0, 0]
    home = str(empty_stack.home)
    found = [p.pid for p in psutil.process_iter(["cmdline"]) if any(home in word for word in p.info["cmdline"] or [])]
    assert found == [pids(empty_stack)["s3"]]


def test_up_after_an_interrupt_goes_on_with_what_runs(empty_stack: Stack) -> None:
    first = start_up(empty_stack, "kafka")
    deadline = time.monotonic() + 60
    while "kafka" not in state.read(empty_stack.home).started:  # status would wait for Kafka's answer
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGINT)
    assert first.wait(30) != 0
    interrupted = pids(empty_stack)
    empty_stack.up(["kafka"])
    assert pids(empty_stack) == interrupted
    produce(empty_stack, "t", [b"v"])


def test_a_server_that_ends_while_starting_is_told_with_its_log(empty_stack: Stack) -> None:
    folder = empty_stack.home / "servers/kafka"
    (folder / "data").mkdir(parents=True)
    (folder / "data/meta.properties").write_text("version=99\n")
    (folder / "formatted").touch()
    with pytest.raises(LodeError, match=r"kafka ended while starting \(exit code 1\)(.|\n)*99"):
        empty_stack.up(["kafka"])
    assert status(empty_stack, "kafka").state == "died"


def test_a_process_that_took_over_the_id_is_left_alone(empty_stack: Stack) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        started = state.Started(other.pid, psutil.Process(other.pid).create_time() - 3600, "")
        with state.locked(empty_stack.home):
            state.write(empty_stack.home, state.State({}, {"s3": started}), {})
        assert status(empty_stack, "s3").state == "died"
        empty_stack.down()
        assert other.poll() is None
        other.kill()


def test_reset_removes_its_own_files_alone(empty_stack: Stack) -> None:
    empty_stack.up(["s3"])
    (empty_stack.home / "mine").touch()
    empty_stack.reset()
    assert sorted(path.name for path in empty_stack.home.iterdir()) == ["lock", "mine"]


def test_a_wrong_name_lists_the_right_ones(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no server kafak; there are hdfs, hbase, druid, standalone, yarn, kafka, .*nodemanager"
    ):
        stack.up(["kafak"])
    for call in (stack.kill, stack.restart, stack.logs):
        with pytest.raises(ConfigError, match="no server hdfs; there are kafka"):
            call("hdfs")
    assert list(tmp_path.iterdir()) == []
