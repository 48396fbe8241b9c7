"""An object of a store as a seekable file, of which only the ranges that are read are fetched."""

import io
from typing import Any

import obstore
from obstore.store import ObjectStore


class RangeFile(io.RawIOBase):
    """For readers that need little of a large object, such as two columns of a Parquet file. Not thread-safe.

    Every read is one request; the store's own errors come through.
    """

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        """`size` is the object's, in bytes."""
        self._store = store
        self._path = path
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._at)
        if length <= 0:
            return 0
        view[:length] = obstore.get_range(self._store, self._path, start=self._at, length=length)
        self._at += length
        return length
