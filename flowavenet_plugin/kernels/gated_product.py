"""The gate of a layer and the 1x1 convolution behind it, as one function of rows: torch's form, and the choice.

``triton_gated_product.py`` holds the same function as one kernel; it is imported where it is chosen only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor


def gated_product(
    pre: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    base: Tensor | None,
    scale: float,
    mask: Tensor | None,
    out: Tensor,
) -> Tensor:
    """Write (gate(pre) @ weight + bias + scale * base) * mask to ``out``.

    The gate is that of :mod:`flowavenet_plugin.kernels.gated_stack`: b - 2ab of a = sigmoid(filter), b = sigmoid(gate),
    which is -tanh(filter / 2) sigmoid(gate).

    Args:
        pre: Filter values, then as many gate values, shape (B, rows, 2 * width).
        weight: Shape (width, columns).
        bias: Shape (columns,); None: none.
        base: What is added, shape (B, rows, columns), may be ``out`` itself; None: nothing.
        scale: Its factor.
        mask: 1 for rows that count, 0 for those that become zero, shape (B, rows, 1); None: all count.
        out: Shape (B, rows, columns), of the type of all others.
    """
    a, b = pre.sigmoid().chunk(2, dim=2)
    value = torch.matmul(torch.addcmul(b, a, b, value=-2), weight)
    if bias is not None:
        value = value + bias
    if base is not None:
        value = torch.add(value, base, alpha=scale)
    if mask is not None:
        value = value * mask
    return out.copy_(value)


def choose_gated_product(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Return the kernel on a CUDA device where Triton is installed, else (and for float64) torch's form."""
    if device.type != "cuda" or dtype == torch.float64 or importlib.util.find_spec("triton") is None:
        return gated_product
    from flowavenet_plugin.kernels import triton_gated_product

    return triton_gated_product.gated_product
