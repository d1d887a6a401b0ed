"""Memory that is used again: a fresh page costs more at its first touch than to compute with it."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
import weakref

import torch
from torch import Tensor

#: Bytes from which on it pays to keep memory.
LARGE = 2**20


class Memory:
    """Large tensors on a CPU whose memory goes to the next one of that size, once nothing refers to it any more.

    Gradients and activations come and go in each training step, always of the same sizes. On other devices PyTorch's
    own allocator does that. What a few turns in a row didn't use is given back. The memory is this process's own: a
    forked child gets a copy of it, as of all other memory. Linux is asked for large pages.
    """

    #: Turns that unused memory is kept.
    KEPT_TURNS = 2

    def __init__(self) -> None:
        # Of each size: pages, and the view of them that a tensor made from it keeps alive.
        self._pages: dict[int, list[tuple[mmap.mmap, weakref.ref[memoryview]]]] = {}
        self._last: dict[int, int] = {}  # turn in which a size was last wanted
        self._turn = 0
        self._lock, self._process = threading.Lock(), os.getpid()

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()

    def turn(self) -> None:
        """Begin a turn, for instance a training step."""
        with self._locked():
            self._turn += 1
            for size in [size for size, last in self._last.items() if self._turn - last > self.KEPT_TURNS]:
                del self._pages[size], self._last[size]

    def empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the type of ``like``."""
        size = math.prod(shape) * like.element_size()
        if like.device.type != "cpu" or size < LARGE:
            return like.new_empty(shape)
        with self._locked():
            return torch.frombuffer(self._take(size), dtype=like.dtype).view(shape)

    def _take(self, size: int) -> memoryview:
        self._last[size] = self._turn
        pages = self._pages.setdefault(size, [])
        place = next((i for i, (_, view) in enumerate(pages) if view() is None), len(pages))
        made = _new_pages(size) if place == len(pages) else pages[place][0]
        view = memoryview(made)
        pages[place:] = [(made, weakref.ref(view)), *pages[place + 1 :]]
        return view

    def _locked(self) -> threading.Lock:
        if self._process != os.getpid():  # in a forked child: a thread that it hasn't got may have held the lock
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock


def _new_pages(size: int) -> mmap.mmap:
    """Return memory that no other process sees."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            made.madvise(mmap.MADV_HUGEPAGE)
    return made


class Scratch:
    """Buffers that are used again by name."""

    def __init__(self, memory: Memory | None = None) -> None:
        """Start without buffers; those to come are of ``memory``."""
        self.memory = Memory() if memory is None else memory
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        self._children: dict[int, Scratch] = {}

    def child(self, number: int) -> Scratch:
        """Return the buffers of a thread of its own."""
        if number not in self._children:
            self._children[number] = Scratch(self.memory)
        return self._children[number]

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the type of ``like``; the last one of this name becomes invalid."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, like.dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, like.dtype] = self.memory.empty((size,), like)
        return buffer[:size].view(shape)
