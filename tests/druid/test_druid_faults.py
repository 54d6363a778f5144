"""What may go wrong with a load into a real Druid; the oracle is a query before and after, and that a re-run repairs."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from druid_cases import FIRST, Case, events, outcomes
from fault_proxy import FaultProxy, SilentProxy

from pipeline_lib.druid.chunks import chunks_of, task_id
from pipeline_lib.druid.ledger import Ledger
from pipeline_lib.druid.run import load_chunk
from pipeline_lib.druid.spec import ingestion_task
from pipeline_lib.errors import LodeError, ServerUnavailable, VerificationFailed
from pipeline_lib.io.delta_files import live_files
from pipeline_lib.io.druid import Druid
from pipeline_lib.io.s3 import S3
from pipeline_lib.stack.stack import Stack

READ = rb"GET [^ ]*druid-staging"
"""Druid reads what Lode has staged: the task is in the middle of its work."""


@pytest.fixture
def loaded(case: Case) -> Case:
    case.write(0, 100)
    case.load()
    return case


def add_file(case: Case) -> str:
    """The path of a file that the table has more than was loaded."""
    before = case.paths()
    case.write(0, 50)
    (path,) = case.paths() - before
    return path


def bytes_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["quality", "date"]), sink, compression="snappy")
    return bytes(sink.getvalue())


def with_settings(case: Case, web: str | None = None, **druid: int) -> Case:
    assert case.config.druid
    settings = case.config.druid.model_copy(update=druid)
    hdfs = case.config.hdfs.model_copy(update={"web": web or case.config.hdfs.web})
    return replace(case, config=case.config.model_copy(update={"druid": settings, "hdfs": hdfs}), druid=Druid(settings))


def load_as_json(case: Case) -> str:
    """Loads the first day as a Druid without the extensions is given it."""
    chunk = chunks_of(case.source.declared, live_files(case.source.table)[1], None)[0]
    ledger = Ledger(S3(case.config.s3), case.name)
    return load_chunk(case.config, case.druid, ledger, case.source, chunk, "json").outcome


def test_json_over_http_gives_the_same_as_parquet(loaded: Case) -> None:
    first = loaded.revenue()
    loaded.replace(0, 100)
    assert load_as_json(loaded) == "loaded"
    assert (loaded.rows(), loaded.revenue()) == (100, first)


def test_a_row_without_a_time_stops_the_load(loaded: Case) -> None:
    bad = events(FIRST, 20)
    times = [None, *bad.column("event_time").to_pylist()[1:]]
    loaded.write(0, table=bad.set_column(0, "event_time", pa.array(times, pa.timestamp("us", "UTC"))))
    with pytest.raises(LodeError, match="failed") as told:
        loaded.load()
    assert (told.value.exit_code, loaded.rows()) == (1, 100)
    loaded.replace(0, 30)
    assert outcomes(loaded.load()) == ["loaded"]
    assert loaded.rows() == 30


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_file_leaves_the_old_version(loaded: Case, damage: str) -> None:
    path = add_file(loaded)
    whole = bytes_of(events(FIRST, 50))
    if damage == "missing":
        loaded.files.delete(path)
    else:
        loaded.files.write(path, whole[: len(whole) // 2])
    with pytest.raises(LodeError, match="failed") as told:
        loaded.load()
    assert (told.value.exit_code, loaded.rows()) == (1, 100)
    loaded.files.write(path, whole)
    assert outcomes(loaded.load()) == ["loaded"]
    assert loaded.rows() == 150


def test_success_with_too_few_rows_is_taken_back(loaded: Case) -> None:
    path = add_file(loaded)
    loaded.files.write(path, bytes_of(events(FIRST, 49)))
    before = loaded.revenue()
    with pytest.raises(VerificationFailed, match="149 rows of 150") as told:
        loaded.load()
    assert (told.value.exit_code, loaded.rows(), loaded.revenue()) == (12, 100, before)
    loaded.files.write(path, bytes_of(events(FIRST, 50)))
    assert outcomes(loaded.load()) == ["loaded"]
    assert loaded.rows() == 150


def test_the_same_load_twice_at_once_is_one_task(case: Case) -> None:
    case.write(0, 100)
    case.write(1, 10)
    case.write(2, 10)
    with ThreadPoolExecutor(3) as pool:  # the third overlaps the others
        done = [future.result() for future in [pool.submit(case.load, *days) for days in ((0, 2), (0, 2), (1, 3))]]
    assert (case.rows(0, 3), [len(each) for each in done]) == (120, [2, 2, 2])
    for chunk in chunks_of(case.source.declared, live_files(case.source.table)[1], None):
        digest = chunk.digest(case.source.declared)
        states = [case.druid.task(task_id(case.name, chunk, digest, attempt)) for attempt in (0, 1)]
        assert [state is not None for state in states] == [True, False]


@contextmanager
def refusing(case: Case, status: int) -> Iterator[str]:
    """WebHDFS that refuses to hand out what was staged, and sends everything else to the real one."""

    class Refusal(BaseHTTPRequestHandler):
        def answer(self) -> None:
            staged = self.command == "GET" and "druid-staging" in self.path
            self.send_response(status if staged else 307)
            self.send_header("Location", f"{case.config.hdfs.web}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_DELETE = answer

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_input_that_is_refused_ends_at_the_deadline(loaded: Case) -> None:
    loaded.write(0, 50)
    with refusing(loaded, 403) as web, pytest.raises(LodeError, match="shut down") as told:
        load_as_json(with_settings(loaded, web, task_timeout_s=3))
    assert (told.value.exit_code, loaded.rows()) == (1, 100)
    assert outcomes(loaded.load()) == ["loaded"]
    assert loaded.rows() == 150


def test_a_lock_of_another_task_is_waited_for_and_told(loaded: Case, caplog: pytest.LogCaptureFixture) -> None:
    loaded.write(0, 50)
    chunk = chunks_of(loaded.source.declared, live_files(loaded.source.table)[1], None)[0]
    holder = f"holder-{loaded.name}"
    with refusing(loaded, 403) as web, caplog.at_level("INFO", "lode"):
        uris = [f"{web}/webhdfs/v1/druid-staging/none"]
        assert loaded.druid.submit(ingestion_task(holder, loaded.name, loaded.source.declared, chunk, "json", uris))
        timer = threading.Timer(7, partial(loaded.druid.shut_down, holder))
        timer.start()
        assert outcomes(loaded.load()) == ["loaded"]
        timer.join()
    assert f"held_by={holder}" in caplog.text
    assert loaded.rows() == 150


def test_ctrl_c_ends_the_load_and_its_task(loaded: Case, tmp_path: Path) -> None:
    loaded.write(0, 50)
    chunk = chunks_of(loaded.source.declared, live_files(loaded.source.table)[1], None)[0]
    holder, log = f"holder-{loaded.name}", tmp_path / "log"
    line = loaded.deployment.command("ingest", "druid", loaded.name, "--changed")
    with refusing(loaded, 403) as web, log.open("wb") as out:
        uris = [f"{web}/webhdfs/v1/druid-staging/none"]
        assert loaded.druid.submit(ingestion_task(holder, loaded.name, loaded.source.declared, chunk, "json", uris))
        job = subprocess.Popen(line, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 60
            while "waits_for_lock" not in log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            job.send_signal(signal.SIGINT)
            code = job.wait(30)
        finally:
            job.kill()
            job.wait(10)
            loaded.druid.shut_down(holder)
    assert code == 130, log.read_text()
    digest = chunk.digest(loaded.source.declared)
    ended = loaded.druid.task(task_id(loaded.name, chunk, digest, 0))
    assert ended
    assert (ended.status, loaded.rows()) == ("FAILED", 100)
    assert outcomes(loaded.load()) == ["loaded"]
    assert loaded.rows() == 150


def proxied(case: Case, proxy: FaultProxy) -> Case:
    return with_settings(case, f"http://{proxy.address}")


def upstream(case: Case) -> str:
    return urlsplit(str(case.config.hdfs.web)).netloc


def test_a_killed_indexer_leaves_the_old_version(loaded: Case, druid_stack: Stack) -> None:
    loaded.write(0, 50)

    def crash() -> None:
        druid_stack.kill("druid-indexer")
        threading.Thread(target=druid_stack.up, args=(["druid"],)).start()

    proxy = FaultProxy(upstream(loaded), READ, crash, before=True)
    with pytest.raises(LodeError, match="failed") as told:
        load_as_json(proxied(loaded, proxy))
    proxy.close()
    assert proxy.fired.is_set()
    assert (told.value.exit_code, loaded.rows()) == (1, 100)
    assert outcomes(loaded.load()) == ["loaded"]
    assert loaded.rows() == 150


def test_a_coordinator_restart_in_the_middle_is_waited_for(loaded: Case, druid_stack: Stack) -> None:
    loaded.write(0, 50)
    proxy = SilentProxy(upstream(loaded), READ, 6)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(load_as_json, proxied(loaded, proxy))
        assert proxy.fired.wait(60)
        druid_stack.restart("druid-coordinator")
        assert load.result() == "loaded"
    proxy.close()
    assert loaded.rows() == 150


def test_what_no_historical_serves_is_taken_back(loaded: Case, druid_stack: Stack) -> None:
    loaded.write(0, 50)
    druid_stack.kill("druid-historical")
    with pytest.raises(ServerUnavailable, match="no historical served") as told:
        with_settings(loaded, load_timeout_s=3).load()
    assert told.value.exit_code == 1
    druid_stack.up(["druid"])
    assert outcomes(loaded.load()) == ["loaded"]
    assert loaded.rows() == 150
