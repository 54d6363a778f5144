"""Files on HDFS over WebHDFS: for Druid clusters that cannot read Parquet from HDFS themselves."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import requests

from pipeline_lib.errors import ServerUnavailable


class WebHdfs:
    """The file system behind a NameNode's web address. Paths are absolute."""

    def __init__(self, url: str, timeout_s: int) -> None:
        self._url, self._timeout = url.rstrip("/"), timeout_s

    def uri(self, path: str) -> str:
        """The address at which anyone who reaches the NameNode reads the file."""
        return f"{self._url}/webhdfs/v1{path}?op=OPEN"

    def read_parquet(self, path: str, columns: list[str]) -> pa.Table:
        answer = self._call("GET", self.uri(path))
        return pq.read_table(io.BytesIO(answer.content), columns=columns, partitioning=None)

    def write(self, path: str, data: bytes) -> None:
        """Writes a file, over one of that name. The NameNode names the DataNode that takes the bytes."""
        where = f"{self._url}/webhdfs/v1{path}?op=CREATE&overwrite=true"
        node = self._call("PUT", where, allow_redirects=False).headers["Location"]
        self._call("PUT", node, data=data)

    def delete(self, path: str) -> None:
        self._call("DELETE", f"{self._url}/webhdfs/v1{path}?op=DELETE&recursive=true")

    def _call(
        self, method: str, url: str, data: bytes | None = None, allow_redirects: bool = True
    ) -> requests.Response:
        try:
            answer = requests.request(method, url, data=data, timeout=self._timeout, allow_redirects=allow_redirects)
        except requests.RequestException as error:
            raise ServerUnavailable(f"WebHDFS at {self._url}: {error}") from None
        if answer.status_code >= 400:
            raise ServerUnavailable(f"WebHDFS at {self._url}: {method} {url}: {answer.status_code} {answer.text[:300]}")
        return answer
