"""The name of a file while it is written."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def partial_path(path: Path) -> Path:
    """Return a name beside ``path`` that no other process writes to, on this or on another machine of a cluster."""
    host = socket.gethostname().split(".")[0]
    return path.with_name(f".{path.name}.tmp-{host}.{os.getpid()}")


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left; for whoever alone may write to the folder."""
    for path in folder.glob(".*.tmp-*"):
        path.unlink(missing_ok=True)
