"""Memory that is used again, and memory in large pages."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

#: From this size on NumPy asks Linux for large pages.
LARGE = 2**22
#: Bytes of a line of the processor's cache.
LINE = 64


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor of the type of ``like``, on a CPU a large one in large pages.

    The first touch of a fresh page costs more than to compute with it; large pages are 512 times fewer.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < LARGE:
        return like.new_empty(shape)
    memory = torch.from_numpy(np.empty(size + LINE, dtype=np.uint8))
    start = -memory.data_ptr() % LINE
    return memory[start : start + size].view(like.dtype).view(shape)


class Scratch:
    """Buffers that are used again by name: a fresh large one costs more (page faults) than to compute with it."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the type of ``like``; the last one of this name becomes invalid."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, like.dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, like.dtype] = empty((size,), like)
        return buffer[:size].view(shape)
