"""What the Triton kernel computes, by torch."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_product(
    pre: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    base: Tensor | None,
    alpha: float,
    scale: float,
    mask: Tensor | None,
    out: Tensor,
) -> Tensor:
    """Write (alpha * gate(pre) @ weight + bias + scale * base) * mask to ``out``.

    The gate is that of :mod:`flowavenet_plugin.kernels.gated_stack`: b - 2ab of a = sigmoid(filter), b = sigmoid(gate),
    which is -tanh(filter / 2) sigmoid(gate).

    Args:
        pre: Filter values, then as many gate values, shape (rows, 2 * width).
        weight: Shape (width, columns).
        bias: Shape (columns,); None: none.
        base: What is added, shape (rows, columns), may be ``out`` itself; None: nothing.
        alpha: Factor of the product.
        scale: Factor of ``base``.
        mask: 1 for rows that count, 0 for those that become zero, shape (rows, 1); None: all count.
        out: Shape (rows, columns), of the type of all others.
    """
    a, b = pre.sigmoid().chunk(2, dim=1)
    value = alpha * torch.matmul(torch.addcmul(b, a, b, value=-2), weight)
    if bias is not None:
        value = value + bias
    if base is not None:
        value = torch.add(value, base, alpha=scale)
    if mask is not None:
        value = value * mask
    return out.copy_(value)
