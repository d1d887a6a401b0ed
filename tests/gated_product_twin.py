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

    Arguments as of :func:`flowavenet_plugin.kernels.triton_gated_product.gated_product`; this needs no Triton.
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
