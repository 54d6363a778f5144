"""The archive's table on a real S3 server: exactly one of two writers commits, and progress outlives the log."""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction
from deployments import Deployment
from pydantic import SecretStr

from pipeline_lib.archive.commits import ArchiveCommit, chain_app_id, digest, read_chain
from pipeline_lib.archive.segment import Segment, with_event_times, write_segments
from pipeline_lib.batches.progress import app_id
from pipeline_lib.codecs import CodecSettings, make_codec
from pipeline_lib.config import S3Settings
from pipeline_lib.errors import ConfigError, LodeError, LostRace, ServerUnavailable
from pipeline_lib.io.archive_table import ArchiveTable
from pipeline_lib.io.s3 import S3
from pipeline_lib.records.batch import RAW_RECORD
from pipeline_lib.records.offsets import OffsetRange

APPS = {p: app_id("id", p) for p in range(3)}


@pytest.fixture
def settings(deployment: Deployment) -> S3Settings:
    return deployment.config.s3


@pytest.fixture
def path() -> str:
    return f"archive/cluster/t-{uuid.uuid4().hex[:10]}"


def opened(settings: S3Settings, path: str) -> ArchiveTable:
    table = ArchiveTable(settings, path)
    table.create()
    return table


def stored(settings: S3Settings, path: str, partition: int, since: int, until: int) -> Segment:
    """A real segment of the given offsets."""
    size = until - since
    columns = [
        pa.array(range(since, until), pa.int64()),
        pa.array([1_793_491_200_000 + at for at in range(size)], pa.int64()).cast(RAW_RECORD.field("timestamp").type),
        pa.array([0] * size, pa.int8()),
        pa.array([b"k"] * size, pa.binary()),
        pa.array([b"v"] * size, pa.binary()),
        pa.array([[]] * size, RAW_RECORD.field("headers").type),
    ]
    rows = with_event_times(pa.RecordBatch.from_arrays(columns, schema=RAW_RECORD), make_codec(CodecSettings("raw")))
    ((segment, data),) = write_segments(
        [rows], "id", OffsetRange(partition, since, until), 1 << 20, uuid.uuid4().hex[:8]
    )
    S3(settings).put(f"{path}/{segment.path}", data)
    return segment


def commit(table: ArchiveTable, moves: dict[int, int], segments: tuple[Segment, ...] = (), run: str = "run") -> None:
    """One batch: the next of the chain, on the version that was opened."""
    before = table.commits()
    since = table.progress(APPS)
    covers = {p: (since.get(p, 0), until) for p, until in moves.items()}
    number, previous = len(before) + 1, digest(before[-1]) if before else ""
    text = ArchiveCommit(number, "cluster", "t", "id", run, covers, (), segments, previous).to_json()
    table.commit(segments, text, {APPS[p]: until for p, until in moves.items()} | {chain_app_id(): number})


def test_a_new_table_has_no_progress(settings: S3Settings, path: str) -> None:
    table = ArchiveTable(settings, path)
    assert (table.exists, table.version, table.progress(APPS), table.commits(), table.files()) == (
        False,
        -1,
        {},
        [],
        set(),
    )
    table.create()
    assert (table.exists, table.version, table.progress(APPS), table.commits(), table.files()) == (
        True,
        0,
        {},
        [],
        set(),
    )


def test_a_commit_shows_its_segments_progress_and_metadata(settings: S3Settings, path: str) -> None:
    table = opened(settings, path)
    segments = (stored(settings, path, 0, 0, 5), stored(settings, path, 2, 0, 7))
    commit(table, {0: 5, 2: 7}, segments)
    again = ArchiveTable(settings, path)
    assert again.progress(APPS) == {0: 5, 2: 7}
    assert again.files() == {segment.path for segment in segments}
    (found,) = read_chain(again.commits(), 1)
    assert found.segments == segments
    delta = DeltaTable(again._uri, storage_options=again._options)
    offsets = delta.to_pyarrow_table(columns=["offset"])["offset"].to_pylist()
    assert sorted(offsets) == sorted([*range(5), *range(7)])
    assert delta.to_pyarrow_table(filters=[("partition", "=", 2)]).num_rows == 7


def test_of_two_writers_on_one_version_one_commits(settings: S3Settings, path: str) -> None:
    opened(settings, path)
    first, second = ArchiveTable(settings, path), ArchiveTable(settings, path)
    mine, theirs = stored(settings, path, 0, 0, 5), stored(settings, path, 0, 0, 8)
    commit(first, {0: 5}, (mine,), "first")
    with pytest.raises(LostRace, match="concurrent run"):
        commit(second, {0: 8}, (theirs,), "second")
    after = ArchiveTable(settings, path)
    assert after.progress(APPS) == {0: 5}
    assert after.files() == {mine.path}
    assert [found.run for found in read_chain(after.commits(), 1)] == ["first"]


def test_writers_of_different_partitions_cannot_fork_the_chain(settings: S3Settings, path: str) -> None:
    opened(settings, path)
    first, second = ArchiveTable(settings, path), ArchiveTable(settings, path)
    commit(first, {0: 5})
    with pytest.raises(LostRace):
        commit(second, {1: 5})
    after = ArchiveTable(settings, path)
    commit(after, {1: 5})
    assert len(read_chain(ArchiveTable(settings, path).commits(), 2)) == 2


def race(works: list[Callable[[], None]]) -> list[Exception | None]:
    ends: list[Exception | None] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(at: int) -> None:
        barrier.wait()
        try:
            works[at]()
        except Exception as error:
            ends[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_of_racing_writers_exactly_one_commits_every_time(settings: S3Settings, path: str) -> None:
    opened(settings, path)
    for turn in range(1, 6):
        tables = [ArchiveTable(settings, path) for _ in range(4)]
        ends = race([partial(commit, table, {0: turn * 10}, (), f"{turn}-{n}") for n, table in enumerate(tables)])
        assert sum(end is None for end in ends) == 1, ends
        assert all(end is None or type(end) is LostRace for end in ends), ends
        winner = ends.index(None)
        chain = read_chain(ArchiveTable(settings, path).commits(), turn)
        assert chain[-1].run == f"{turn}-{winner}"
        assert ArchiveTable(settings, path).progress(APPS) == {0: turn * 10}


def test_racing_creators_end_with_one_table(settings: S3Settings, path: str) -> None:
    tables = [ArchiveTable(settings, path) for _ in range(4)]
    assert race([table.create for table in tables]) == [None] * 4
    # delta-rs may write the metadata a second time; the table is one all the same.
    assert ArchiveTable(settings, path).files() == set()
    commit(ArchiveTable(settings, path), {0: 5}, (stored(settings, path, 0, 0, 5),))
    assert ArchiveTable(settings, path).progress(APPS) == {0: 5}


def test_racing_first_runs_commit_once(settings: S3Settings, path: str) -> None:
    def first_run(table: ArchiveTable, run: str) -> None:
        table.create()
        if table.progress(APPS):
            raise LostRace("the other was done before this one planned")
        commit(table, {0: 5}, (), run)

    for turn in range(5):
        folder = f"{path}-{turn}"
        tables = [ArchiveTable(settings, folder) for _ in range(4)]
        ends = race([partial(first_run, table, str(n)) for n, table in enumerate(tables)])
        assert all(end is None or type(end) is LostRace for end in ends), ends
        won = [str(n) for n, end in enumerate(ends) if end is None]
        table = ArchiveTable(settings, folder)
        assert [found.run for found in read_chain(table.commits(), len(won))] == won
        if not won:  # all lost to the table's making: a re-run repairs it
            commit(table, {0: 5})
        assert ArchiveTable(settings, folder).progress(APPS) == {0: 5}


def test_progress_outlives_checkpoints_and_foreign_commits(settings: S3Settings, path: str) -> None:
    table = opened(settings, path)
    for at in range(1, 4):
        commit(
            table := ArchiveTable(settings, path), {0: 5 * at, 1: at}, (stored(settings, path, 0, 5 * at - 5, 5 * at),)
        )
    options = table._options
    for _ in range(60):  # commits of others, beyond delta.checkpointInterval
        DeltaTable(table._uri, storage_options=options).alter.set_table_properties({"delta.appendOnly": "false"})
    delta = DeltaTable(table._uri, storage_options=options)
    delta.create_checkpoint()
    keys = [entry.key for entry in S3(settings).list(f"{path}/_delta_log/")]
    assert any("checkpoint" in key for key in keys)
    after = ArchiveTable(settings, path)
    assert after.progress(APPS) == {0: 15, 1: 3}
    assert len(read_chain(after.commits(), 3)) == 3
    for key in keys:  # the log's JSON is gone: only the checkpoint is left to tell
        if key.endswith(".json") and int(key.rsplit("/", 1)[1].split(".")[0]) < delta.version() - 1:
            S3(settings).delete(key)
    assert ArchiveTable(settings, path).progress(APPS) == {0: 15, 1: 3}
    assert len(ArchiveTable(settings, path).files()) == 3
    DeltaTable(table._uri, storage_options=options).optimize.compact()
    after = ArchiveTable(settings, path)
    assert after.progress(APPS) == {0: 15, 1: 3}
    after.commit((), "{}", {APPS[0]: 20, chain_app_id(): 4})
    assert ArchiveTable(settings, path).progress(APPS) == {0: 20, 1: 3}


def test_a_foreign_commit_in_between_loses_no_batch(settings: S3Settings, path: str) -> None:
    mine = opened(settings, path)
    other = CommitProperties(app_transactions=[Transaction("other", 1)])
    DeltaTable(mine._uri, storage_options=mine._options).alter.set_table_properties(
        {"delta.appendOnly": "false"}, commit_properties=other
    )
    try:
        commit(mine, {0: 5})
    except LostRace:
        assert ArchiveTable(settings, path).progress(APPS) == {}
    else:
        assert ArchiveTable(settings, path).progress(APPS) == {0: 5}


# What goes wrong


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def attempts(settings: S3Settings, path: str) -> list[Callable[[], object]]:
    store = S3(settings)
    return [
        lambda: opened(settings, path),
        lambda: ArchiveTable(settings, path),
        lambda: store.put("a", b"x"),
        lambda: store.put_if_absent("a", b"x"),
        lambda: store.get("a"),
        lambda: list(store.list("a")),
        lambda: store.delete("a"),
    ]


def with_(settings: S3Settings, **changes: object) -> S3Settings:
    return settings.model_copy(update=changes)


def test_a_wrong_secret_is_a_configuration_error(settings: S3Settings, path: str) -> None:
    opened(settings, path)
    for wrong in ({"secret_key": SecretStr("hunter2")}, {"access_key": SecretStr("hunter2")}):
        for attempt in attempts(with_(settings, **wrong), path):
            with within(10), pytest.raises(ConfigError) as caught:
                attempt()
            assert "hunter2" not in str(caught.value)
            assert settings.secret_key.get_secret_value() not in str(caught.value)


def test_a_missing_bucket_is_named(settings: S3Settings, path: str) -> None:
    told = []
    for attempt in attempts(with_(settings, bucket="no-such-bucket"), path):
        with within(10):
            try:
                attempt()
                told.append("nothing")
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")
    *told, _ = told  # to delete what is not there is no error
    assert all(text.startswith("ConfigError") and "no-such-bucket" in text for text in told), told


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_is_down_or_silent_is_told_in_time(settings: S3Settings, path: str, silent: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen(64)
        gone = with_(settings, endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=1)
        for attempt in attempts(gone, path)[1:3]:
            with within(25), pytest.raises(ServerUnavailable, match=r"S3 at http://127\.0\.0\.1:"):
                attempt()


def test_put_if_absent_has_one_winner(settings: S3Settings) -> None:
    key, store = f"objects/{uuid.uuid4().hex}.json", S3(settings)
    won: list[bool] = []
    race([lambda n=n: won.append(S3(settings).put_if_absent(key, b"%d" % n)) for n in range(4)])  # type: ignore[misc]
    assert sorted(won) == [False, False, False, True]
    assert store.put_if_absent(key, b"late") is False
    assert store.get(key) in (b"0", b"1", b"2", b"3")
    assert store.get("objects/none.json") is None


def test_keys_are_below_the_prefix(settings: S3Settings) -> None:
    name = uuid.uuid4().hex
    inner, outer = S3(with_(settings, prefix=f"{name}/")), S3(settings)
    inner.put("folder/a", b"1")
    assert [(entry.key, entry.bytes) for entry in inner.list("folder/")] == [("folder/a", 1)]
    assert outer.get(f"{name}/folder/a") == b"1"
    inner.delete("folder/a")
    assert list(outer.list(name)) == []


def test_a_log_that_cannot_be_read_is_an_error_of_lode(settings: S3Settings, path: str) -> None:
    table = opened(settings, path)
    S3(settings).put(f"{path}/_delta_log/00000000000000000001.json", b"not json")
    for attempt in (
        lambda: ArchiveTable(settings, path),
        lambda: ArchiveTable(settings, path).commits(),
        lambda: commit(table, {0: 1}),
        table.commits,
    ):
        with pytest.raises(LodeError):
            attempt()


class Relay:
    """Passes bytes on to the S3 server until it is cut."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = [self._listener]
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_a_server_that_goes_down_at_the_commit_is_no_lost_race(settings: S3Settings, path: str) -> None:
    assert settings.endpoint is not None
    relay = Relay(settings.endpoint)
    table = opened(with_(settings, endpoint=relay.endpoint, timeout_s=2), path)
    segment = stored(settings, path, 0, 0, 5)
    text = ArchiveCommit(1, "cluster", "t", "id", "run", {0: (0, 5)}, (), (segment,), "").to_json()
    relay.cut()
    with within(60), pytest.raises(ServerUnavailable):
        table.commit((segment,), text, {APPS[0]: 5, chain_app_id(): 1})
    assert ArchiveTable(settings, path).progress(APPS) == {}
