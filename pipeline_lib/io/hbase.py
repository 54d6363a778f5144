"""HBase through happybase and Thrift 1; tables are made by HBase's own RegionSplitter.

Every write of Lode gives the same table when it is repeated, so a request whose end is unknown is made again, on a new
connection: the old one may still hold a late answer.
"""

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import happybase
import thriftpy2
from Hbase_thrift import AlreadyExists, IllegalArgument, Mutation
from Hbase_thrift import IOError as HBaseError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from thriftpy2.thrift import TClient, TException

from pipeline_lib.config import HBaseCluster
from pipeline_lib.errors import ConfigError, LodeError, ServerUnavailable
from pipeline_lib.io.hbase_split import create_split_table
from pipeline_lib.log import fact

T = TypeVar("T")
Cells = dict[bytes, tuple[bytes, int]]
"""The cells of a stored row: value and timestamp (ms) of each column."""

SCAN_BYTES = 8 << 20
"""About what one page of a scan brings; the rows of a page follow from the size of those before."""
MAX_PAGE_ROWS = 10_000
RETRY_S = 120
"""How long a cluster that answers, but cannot serve a region, is waited for: a region server's restart takes a minute."""
# happybase has an older interface file, without the call that tells the clusters apart.
_CLUSTER = thriftpy2.load_fp(io.StringIO("service Cluster { string getClusterId() }"), "cluster_thrift").Cluster
_PERMANENT = (
    "NoSuchColumnFamily",
    "TableNotFoundException",
    "KeyValue size too large",
    "TableNotEnabled",
    "Undefined table",
)


class RowTooLarge(LodeError):
    """HBase refuses a row for its size."""


class _Busy(Exception):
    """The cluster answers that it cannot do it now: a region moves, splits or is too busy."""


class _Broken(Exception):
    """The connection is of no use any more."""


@dataclass(frozen=True)
class TableInfo:
    """What a table is: versions kept of each family, and the first keys of its regions, the empty one left out."""

    families: Mapping[str, int]
    splits: tuple[bytes, ...]


class HBase:
    """One cluster. Use as a context manager: it holds a connection, opened when it is first needed."""

    def __init__(self, name: str, settings: HBaseCluster) -> None:
        self.name, self.settings = name, settings
        self._connection: happybase.Connection | None = None
        self._seen: set[str] = set()

    def __enter__(self) -> "HBase":
        return self

    def __exit__(self, *exc: object) -> None:
        self._drop()

    def cluster_id(self) -> str:
        def ask(connection: happybase.Connection) -> str:
            answer = TClient(_CLUSTER, connection.client._iprot, connection.client._oprot).getClusterId()
            return answer.decode() if isinstance(answer, bytes) else str(answer)

        return self._call(ask)

    def tables(self) -> list[str]:
        return sorted(name.decode() for name in self._call(lambda c: c.tables()))

    def describe(self, table: str) -> TableInfo | None:
        """None where there is no such table."""
        if table not in self.tables():
            return None
        families = self._call(lambda c: c.table(table).families())
        regions = self._call(lambda c: c.table(table).regions())
        kept = {name.decode().rstrip(":"): int(family["max_versions"]) for name, family in families.items()}
        return TableInfo(kept, tuple(sorted(region["start_key"] for region in regions if region["start_key"])))

    def create_table(self, table: str, family: str, regions: int = 1) -> None:
        """Makes a table, split evenly by the first byte of its keys, unless there is one.

        Raises:
            ConfigError: it has to be split, and the cluster's ZooKeeper is not known; the text says how to make it.
        """
        if regions == 1:
            self._call(partial(_create, table=table, family=family))
            return
        create_split_table(self.name, self.settings, table, family, regions)
        fact("table_created", cluster=self.name, table=table, regions=regions)

    def delete_table(self, table: str) -> None:
        self._seen.discard(table)
        self._call(lambda c: c.delete_table(table, disable=True))

    def put(self, table: str, rows: Sequence[tuple[bytes, Mapping[bytes, bytes]]], timestamp: int) -> None:
        """Writes rows with one timestamp, in one request. Half of them may be there when it fails: repeat it.

        Raises:
            ConfigError: the table or a column family is missing.
            RowTooLarge: HBase refuses one of the rows for its size.
            ServerUnavailable: the cluster did not take them within the time-out.
        """

        name = self._known(table)

        def send(connection: happybase.Connection) -> None:
            batch = connection.table(name).batch(timestamp=timestamp)
            for key, cells in rows:
                batch.put(key, cells)
            batch.send()

        self._call(send)

    def get(self, table: str, keys: Sequence[bytes]) -> dict[bytes, Cells]:
        """The rows with these keys; those that are not there, or are masked by a delete marker, are left out."""
        name = self._known(table)
        return dict(self._call(lambda c: c.table(name).rows(list(keys), include_timestamp=True)))

    def scan(self, table: str, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, Cells]]:
        """The rows of [start, stop) in the order of their keys; goes on behind the last one after a fault."""
        return self._pages(table, start, stop, lambda value: len(value[0]), timestamps=True)

    def scan_values(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """As `scan`, with each column's value alone: that takes a third of the time that making (value, timestamp) does."""
        return self._pages(table, start, stop, len, timestamps=False)

    def _pages(
        self, table: str, start: bytes, stop: bytes | None, weigh: Callable[[Any], int], timestamps: bool
    ) -> Iterator[Any]:
        at, size = start, 200
        while True:
            page = self._call(
                partial(_page, table=self._known(table), start=at, stop=stop, size=size, timestamps=timestamps)
            )
            yield from page
            if len(page) < size:
                return
            at = page[-1][0] + b"\0"
            weight = sum(len(name) + weigh(value) for _, cells in page for name, value in cells.items())
            size = max(1, min(MAX_PAGE_ROWS, SCAN_BYTES * len(page) // max(1, weight)))

    def delete(self, table: str, keys: Sequence[bytes], timestamp: int) -> None:
        """Deletes rows' cells up to a timestamp (ms), in one request: cells that are newer stay."""

        name = self._known(table)

        def send(connection: happybase.Connection) -> None:
            batch = connection.table(name).batch(timestamp=timestamp)
            for key in keys:
                batch.delete(key)
            batch.send()

        self._call(send)

    def put_if(self, table: str, key: bytes, column: bytes, value: bytes, expected: bytes | None) -> bool:
        """Writes a cell if it still has the expected value, None being absent; whether it did."""

        name = self._known(table)

        def swap(connection: happybase.Connection) -> bool:
            mutation = Mutation(column=column, value=value)
            client = connection.client
            return bool(client.checkAndPut(name.encode(), key, column, expected, mutation, {}))

        return self._call(swap)

    def _known(self, table: str) -> str:
        """The table's name, once it was seen to be there: a write to one that is missing is answered like a region
        that moves, and would be waited for."""
        if table not in self._seen:
            if table not in self.tables():
                raise ConfigError(f"HBase {self.name} at {self.settings.thrift}: there is no table {table}")
            self._seen.add(table)
        return table

    def _call(self, work: Callable[[happybase.Connection], T]) -> T:
        """Runs work on the connection, again after what passes by itself."""
        started = time.monotonic()

        def patient(state: RetryCallState) -> bool:
            """A silent server is given the time-out, one that answers and recovers RETRY_S."""
            assert state.outcome is not None
            waited = time.monotonic() - started
            return waited > (RETRY_S if isinstance(state.outcome.exception(), _Busy) else self.settings.timeout_s)

        retrying = Retrying(
            retry=retry_if_exception_type((_Busy, _Broken)),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=patient,
            reraise=True,
        )
        try:
            done: T = retrying(self._once, work)
            return done
        except (_Busy, _Broken) as error:
            raise ServerUnavailable(f"HBase {self.name} at {self.settings.thrift}: {error}") from None

    def _once(self, work: Callable[[happybase.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open()
            return work(self._connection)
        except (HBaseError, IllegalArgument) as error:
            raise self._explained(_text(error)) from None
        except (TException, OSError, EOFError) as error:
            self._drop()
            raise _Broken(f"{type(error).__name__}: {_text(error)}") from None
        except BaseException:
            self._drop()  # an interrupt may leave half an answer behind
            raise

    def _open(self) -> happybase.Connection:
        host, port = self.settings.thrift.rsplit(":", 1)
        return happybase.Connection(
            host,
            int(port),
            timeout=self.settings.timeout_s * 1000,
            transport=self.settings.transport,
            protocol=self.settings.protocol,
        )

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(OSError, TException):
                self._connection.close()
            self._connection = None

    def _explained(self, text: str) -> Exception:
        where = f"HBase {self.name} at {self.settings.thrift}"
        if "KeyValue size too large" in text or "exceeds limit of" in text:  # the client's limit, a region server's
            return RowTooLarge(f"{where}: {text.splitlines()[0]}")
        if any(word in text for word in _PERMANENT):
            return ConfigError(f"{where}: {text.splitlines()[0]}")
        return _Busy(text.splitlines()[0] if text else "no reason given")


def _create(connection: happybase.Connection, table: str, family: str) -> None:
    with suppress(AlreadyExists):  # made by another run in this moment, or by a request whose answer was lost
        connection.create_table(table, {family: {"max_versions": 1}})


def _page(
    connection: happybase.Connection, table: str, start: bytes, stop: bytes | None, size: int, timestamps: bool
) -> list[tuple[bytes, Any]]:
    rows = connection.table(table).scan(
        start, stop, include_timestamp=timestamps, batch_size=min(size, 1000), limit=size
    )
    return list(rows)


def _text(error: BaseException) -> str:
    message = getattr(error, "message", None)
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message or error)
