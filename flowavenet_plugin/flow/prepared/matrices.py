"""Products of rows with matrices, into given buffers."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels.products import Matrix


def multiply(
    matrix: Matrix, x: Tensor, out: Tensor, bias: Tensor | None = None, other: Tensor | None = None, **options: float
) -> Tensor:
    """As :meth:`Matrix.multiply`, for batches: (B, rows, in) to (B, rows, out)."""
    for i, (rows, made) in enumerate(zip(x, out, strict=True)):
        matrix.multiply(rows, made, bias, None if other is None else other[i], **options)
    return out


def product(x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None) -> Tensor:
    """Write x @ weight + bias to ``out``: (B, rows, in), (in, out), (B, rows, out), (out,)."""
    if bias is None:
        torch.mm(x[0], weight, out=out[0]) if x.shape[0] == 1 else torch.bmm(x, _each(weight, x), out=out)
        return out
    if x.shape[0] == 1:
        torch.addmm(bias, x[0], weight, out=out[0])
        return out
    return torch.baddbmm(bias.expand_as(out), x, _each(weight, x), out=out)


def add_product(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add x @ weight to ``out``: (B, rows, in), (in, out), (B, rows, out)."""
    if x.shape[0] == 1:
        out[0].addmm_(x[0], weight)
        return out
    return out.baddbmm_(x, _each(weight, x))


def _each(weight: Tensor, x: Tensor) -> Tensor:
    return weight.expand(x.shape[0], *weight.shape)
