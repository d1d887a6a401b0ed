"""Products of rows with matrices, into given buffers."""

from __future__ import annotations

import torch
from torch import Tensor


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
