"""Memory that is used again: a fresh page costs more at its first touch than to compute with it."""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
import torch
from torch import Tensor

#: Bytes from which on it pays to keep memory; from 4 MiB on NumPy asks Linux for large pages.
LARGE = 2**20
#: Bytes of a line of the processor's cache.
LINE = 64


class Memory:
    """Large tensors on a CPU whose memory goes to the next one of that size, once nothing refers to it any more.

    Gradients and activations come and go in each training step, always of the same sizes. On other devices PyTorch's
    own allocator does that. What a few turns in a row didn't use is given back.
    """

    #: References to an array that no tensor uses: the list's, the loop's and the count's own.
    UNUSED = 3
    #: Turns that unused memory is kept.
    KEPT_TURNS = 2

    def __init__(self) -> None:
        self._arrays: dict[int, list[np.ndarray]] = {}
        self._last: dict[int, int] = {}  # turn in which a size was last wanted
        self._turn = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> Memory:
        return Memory()

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()

    def turn(self) -> None:
        """Begin a turn, for instance a training step."""
        with self._lock:
            self._turn += 1
            for size in [size for size, last in self._last.items() if self._turn - last > self.KEPT_TURNS]:
                del self._arrays[size], self._last[size]

    def empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the type of ``like``."""
        size = math.prod(shape) * like.element_size()
        if like.device.type != "cpu" or size < LARGE:
            return like.new_empty(shape)
        with self._lock:
            memory = self._take(size)
        start = -memory.data_ptr() % LINE
        return memory[start : start + size].view(like.dtype).view(shape)

    def _take(self, size: int) -> Tensor:
        self._last[size] = self._turn
        arrays = self._arrays.setdefault(size, [])
        for array in arrays:
            if sys.getrefcount(array) == self.UNUSED:  # a tensor made from it refers to it
                return torch.from_numpy(array)
        array = np.empty(size + LINE, dtype=np.uint8)
        arrays.append(array)
        return torch.from_numpy(array)


class Scratch:
    """Buffers that are used again by name."""

    def __init__(self, memory: Memory | None = None) -> None:
        """Start without buffers; those to come are of ``memory``."""
        self.memory = Memory() if memory is None else memory
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the type of ``like``; the last one of this name becomes invalid."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, like.dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, like.dtype] = self.memory.empty((size,), like)
        return buffer[:size].view(shape)
