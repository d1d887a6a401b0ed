"""Files while they are written: under another name, and gone if it comes to nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def partial_path(path: Path) -> Path:
    """Return a name beside ``path`` that no other process writes to, on this or on another machine of a cluster."""
    host = socket.gethostname().split(".")[0]
    return path.with_name(f".{path.name}.tmp-{host}.{os.getpid()}")


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left; for whoever alone may write to the folder."""
    for path in folder.glob(".*.tmp-*"):
        path.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a name to write to; the file gets its own only when the block has ended, and is gone if it has failed.

    Raises:
        OSError: If it can't be written; see :func:`naming`.
    """
    path = Path(path)
    temporary = partial_path(path)
    try:
        with naming(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_open(path: str | Path) -> Iterator[BinaryIO]:
    """Open for writing under a temporary name; the file gets its own name only when all of it is on the disk."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name the file that can't be written in the block, and why: no space, no permission, too long a name.

    Args:
        path: The file.
        temporary: What it is called for now.

    Raises:
        OSError: If it can't be written. Errors about other files stay as they are.
    """
    known = (None, str(path), str(temporary), str(path.parent))
    try:
        yield
    except OSError as error:
        place = None if error.filename is None else str(error.filename)
        if place not in known or "cannot write" in str(error):
            raise
        raise _cannot_write(path, error.strerror or error, error.errno) from error
    except RuntimeError as error:  # libsndfile doesn't tell why: the system does
        if type(error).__name__ != "LibsndfileError":
            raise
        raise _cannot_write(path, _reason(temporary or path) or error, None) from error


def _cannot_write(path: Path, why: object, number: int | None) -> OSError:
    error = OSError(f"cannot write {path}: {why}")
    error.errno = number
    return error


def _reason(path: Path) -> str | None:
    """Try to write as much as may fail, and return why it does."""
    try:
        with open(path, "wb") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    return None
