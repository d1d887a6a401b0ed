"""One training per folder: a lock that ends with the process that holds it, and that tells which one it is."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

#: In the folder of the experiment; gone when the training ends, of no meaning when a kill left it.
LOCK = ".lock"
#: Tries, a tenth of a second apart: whoever only asks whether the folder is free (run.sh) holds the lock for a moment.
TRIES = 10


class FolderLock:
    """A lock on a folder, by ``flock``: it works between machines on NFS from version 4 on."""

    def __init__(self) -> None:
        self._file = -1
        self._path = Path()
        os.register_at_fork(after_in_child=self._forget)

    def take(self, folder: Path) -> None:
        """Take the lock; the folder is made if it isn't there.

        Raises:
            ValueError: If another process holds it; the message names that.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path, holder = folder / LOCK, "unknown"
        for _ in range(TRIES):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._file, 1000).decode(errors="replace").strip()
                os.close(self._file)
                self._file = -1
                time.sleep(0.1)
                continue
            except OSError as error:  # a file system without locks
                logging.warning(f"{self._path}: no lock ({error}): see to it that one training at a time writes here")
            if self._is_there():
                self._write()
                return
            os.close(self._file)  # whoever held it has just removed it
        raise ValueError(
            f"another training writes to {folder}: {holder}. Wait for it, stop it, or train in another folder "
            "(--output_dir; run.sh: --tag)"
        )

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()  # while it is held: nobody else can have it
            os.close(self._file)
            self._file = -1

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _write(self) -> None:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()}, started {started}\n"
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)

    def _forget(self) -> None:
        """In a process that was forked off, to load data: it must not hold the lock longer than its parent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


#: Of this process, which trains one model at a time.
HELD = FolderLock()
