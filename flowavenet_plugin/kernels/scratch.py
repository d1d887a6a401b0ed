"""Memory that is used again."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Buffers that are used again by name: a fresh large one costs more (page faults) than to compute with it."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the type of ``like``; the last one of this name becomes invalid."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, like.dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, like.dtype] = like.new_empty(size)
        return buffer[:size].view(shape)
