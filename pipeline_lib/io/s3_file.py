"""An object of S3 as a file that is read in parts: of a segment's columns only those that are asked for."""

import io

from pipeline_lib.io.s3 import S3


class RangedObject(io.RawIOBase):
    """Read-only; every read is a request. Raises FileNotFoundError where there is no such object."""

    def __init__(self, store: S3, key: str, size: int) -> None:
        super().__init__()
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        data = self._store.get(self._key, (self._at, end))
        if data is None:
            raise FileNotFoundError(self._key)
        self._at += len(data)
        return data
