"""Features read while they arrive."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic, usable
from flowavenet_plugin.vocoder.reading.network import Reading


class ReadingSession:
    """Read one utterance in pieces: each frame with all that it depends on, so that nothing differs from the whole."""

    def __init__(self, read: Callable[[Tensor, list[int]], Reading], reach: int, like: Tensor) -> None:
        """Begin.

        Args:
            read: Reads features (B, frames, n_mels), given the frames of each item.
            reach: Frames on either side that a frame depends on.
            like: A tensor of the vocoder's.
        """
        self._read, self._reach, self.device = read, reach, like.device
        self._waiting: Tensor | None = None
        self._before = 0  # frames before those that are to come

    @own_arithmetic
    @torch.no_grad()
    def push(self, feats: Tensor, final: bool) -> Reading:
        """Take features (frames, n_mels), none at all too; return those that are read now, shapes (frames, ...)."""
        feats = usable(feats)
        self._waiting = feats = feats if self._waiting is None else torch.cat([self._waiting, feats])
        ready = len(feats) - self._before - (0 if final else self._reach)
        if ready < 1:
            return Reading(feats[:0], feats.new_empty(0, 1))
        now = slice(self._before, self._before + ready)
        reading = Reading(*(part[0, now] for part in self._read(feats[None], [len(feats)])))
        before, self._before = self._before + ready, min(self._before + ready, self._reach)
        self._waiting = feats[before - self._before :]
        return reading
