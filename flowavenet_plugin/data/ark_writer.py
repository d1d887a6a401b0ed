"""Write features to an ark and its list."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import kaldiio
import numpy as np

from flowavenet_plugin.data.lists import write_scp
from flowavenet_plugin.data.partial import atomic_open


class ArkWriter:
    """Write features to an ark and its list: ``with ArkWriter(ark, scp) as writer: writer[utt] = feats``.

    Both appear only when the block ends without exception, and an old list goes before an old ark is replaced: at no
    time is there a list that refers to part of an ark, or into another one.
    """

    def __init__(self, ark_path: str | Path, scp_path: str | Path) -> None:
        self.ark_path, self.scp_path = Path(ark_path), Path(scp_path)
        self._entries: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> ArkWriter:
        self._file = self._stack.enter_context(atomic_open(self.ark_path))
        return self

    def __setitem__(self, utt: str, feats: np.ndarray) -> None:
        """Append the features of an utterance, shape (frames, dim)."""
        if utt in self._entries:
            raise ValueError(f"{utt}: written twice to {self.ark_path}")
        if feats.ndim != 2 or feats.size == 0:
            raise ValueError(f"{utt}: features of shape {feats.shape}; (frames, dim) is wanted")
        offset = self._file.tell() + len(f"{utt} ".encode())
        kaldiio.save_ark(self._file, {utt: np.ascontiguousarray(feats, dtype=np.float32)})
        self._entries[utt] = f"{self.ark_path}:{offset}"

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        if exc_type is None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self.scp_path.unlink(missing_ok=True)
        self._stack.__exit__(exc_type, exc, traceback)
        if exc_type is None:
            write_scp(self.scp_path, self._entries)
