"""Products of rows with matrices, into buffers that are used again."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Buffers used again by name: fresh large ones cost more (page faults) than to compute with them."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of the type of ``like``; the last one of this name becomes invalid."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, like.dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, like.dtype] = like.new_empty(size)
        return buffer[:size].view(shape)


def product(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Write x @ weight + bias to ``out``: (B, rows, in), (in, out), (out,), (B, rows, out)."""
    if x.shape[0] == 1:
        torch.addmm(bias, x[0], weight, out=out[0])
        return out
    return torch.baddbmm(bias.expand_as(out), x, weight.expand(x.shape[0], *weight.shape), out=out)


def add_product(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add x @ weight to ``out``: shapes as in :func:`product`."""
    if x.shape[0] == 1:
        out[0].addmm_(x[0], weight)
        return out
    return out.baddbmm_(x, weight.expand(x.shape[0], *weight.shape))
