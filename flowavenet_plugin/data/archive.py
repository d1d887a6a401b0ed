"""A place in a file, as an archive holds many things one after the other, and perhaps is packed by gzip."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

_GZIP = b"\x1f\x8b"


class Window(io.RawIOBase):
    """A part of a file that reads as a file of its own.

    It has no place in common with other readers of the file, so that processes can share what was unpacked.

    Attributes:
        start: Byte of the file at which this begins.
        size: Bytes of this part.
        there: Bytes of the whole file; of what was packed, unpacked.
        packed: Whether gzip had packed the file.
    """

    def __init__(self, file: BinaryIO, start: int = 0, size: int | None = None, packed: bool = False) -> None:
        """Take a part: ``size`` bytes from ``start`` on; None: to the end of the file."""
        self.start, self.packed, self._file, self._at = start, packed, file, 0
        self.there = os.fstat(file.fileno()).st_size
        rest = max(self.there - start, 0)
        self.size = rest if size is None else min(size, rest)

    def part(self, start: int, size: int | None = None) -> Window:
        """Return a part of this part; ``start`` is counted from its beginning."""
        rest = max(self.size - start, 0)
        return Window(self._file, self.start + start, rest if size is None else min(size, rest), self.packed)

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return the place, in bytes from the beginning of the window."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another place, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read on, up to the end of the window."""
        wanted = min(len(buffer), max(self.size - self._at, 0))
        data = os.pread(self._file.fileno(), wanted, self.start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def buffered(self) -> BinaryIO:
        """Return a reader of this part from its beginning, that never reads less than is asked for and there."""
        return io.BufferedReader(Window(self._file, self.start, self.size, self.packed))


@contextmanager
def open_archive(path: str | Path, start: int = 0) -> Iterator[Window]:
    """Open a file from a byte on; one that gzip has packed is unpacked, and the byte is one of what was packed.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is a damaged gzip file.
    """
    with open(path, "rb") as file:
        if file.read(len(_GZIP)) != _GZIP:
            yield Window(file, start)
            return
        stat = os.fstat(file.fileno())
    unpacked = _unpacked(str(path), (stat.st_mtime_ns, stat.st_size, stat.st_ino))
    yield Window(unpacked, start, packed=True)


@lru_cache(maxsize=2)
def _unpacked(path: str, _stat: tuple[int, ...]) -> BinaryIO:
    """Unpack into a file without a name, which goes with the process: each utterance anew would take hours."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  (kept open)
    try:
        with gzip.open(path) as packed:
            shutil.copyfileobj(packed, file, 2**20)
        file.flush()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        file.close()
        raise ValueError(f"{path} can't be unpacked: {error}") from None
    except OSError as error:
        file.close()
        raise OSError(f"cannot unpack {path} into {tempfile.gettempdir()}: {error.strerror or error}") from error
    return file
