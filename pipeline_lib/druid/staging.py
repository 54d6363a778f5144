"""What Druid is given to read: the table's own files, or copies of them as compressed JSON while a task runs."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_lib.config import Config
from pipeline_lib.druid.chunks import Chunk
from pipeline_lib.druid.declaration import Datasource
from pipeline_lib.druid.spec import Way
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.webhdfs import WebHdfs


@contextmanager
def stage_json(config: Config, declared: Datasource, chunk: Chunk, name: str, way: Way) -> Iterator[list[str]]:
    """The addresses of a chunk's rows; what was copied for it is removed afterwards.

    Raises:
        ConfigError: Druid cannot read Parquet from HDFS, and the address of WebHDFS is not known.
    """
    if way == "parquet" or not chunk.files:
        yield [file.uri for file in chunk.files]
        return
    if config.hdfs.web is None:
        raise ConfigError(
            "Druid has not loaded druid-parquet-extensions and druid-hdfs-storage, so it is given JSON over WebHDFS:"
            " set hdfs.web to the NameNode's http address, or load the extensions"
        )
    files, folder = WebHdfs(config.hdfs.web, 60), f"{config.hdfs.root.rstrip('/')}/druid-staging/{name}"
    try:
        paths = [f"{folder}/{number}.json.gz" for number in range(len(chunk.files))]
        for file, path in zip(chunk.files, paths, strict=True):
            rows = files.read_parquet(urlsplit(file.uri).path, declared.columns())
            files.write(path, json_lines(rows, declared))
        yield [files.uri(path) for path in paths]
    finally:
        files.delete(folder)


def json_lines(rows: pa.Table, declared: Datasource) -> bytes:
    """The declared columns of the rows as gzipped JSON, a row a line; times in ms, as Druid reads Parquet's."""
    columns = {}
    for name in declared.columns():
        column = rows.column(name)
        if pa.types.is_timestamp(column.type):
            column = pc.cast(pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False), pa.int64())
        elif pa.types.is_boolean(column.type):
            column = pc.cast(column, pa.string())
        columns[name] = column
    lines = (json.dumps(row, separators=(",", ":")) for row in pa.table(columns).to_pylist())
    return gzip.compress(("\n".join(lines) + "\n").encode(), compresslevel=1)
