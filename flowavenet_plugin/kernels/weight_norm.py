"""Weight normalisation per output channel (arXiv 1602.07868), w = g v / |v|, and its gradient, in few passes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

#: Values of a piece on a CPU: both of its operands fit the cache.
PIECE = 2**18


def normalise(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write g v / |v| to ``out``.

    Args:
        v: Directions, shape (n, m).
        g: Norms, shape (n, 1).
        out: Shape (n, m), of any floating type.
    """
    for piece in _pieces(v):
        torch.mul(v[piece], g[piece] / v[piece].norm(dim=1, keepdim=True), out=out[piece])


def normalise_backward(grad: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of v and g; ``grad`` is that of the normalised weight, shapes as in :func:`normalise`."""
    grad_v, grad_g = torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(g)
    for piece in _pieces(v):
        norm = v[piece].norm(dim=1, keepdim=True)
        along = (grad[piece] * v[piece]).sum(dim=1, keepdim=True) / norm
        torch.mul(grad[piece], g[piece] / norm, out=grad_v[piece])
        grad_v[piece].addcmul_(v[piece], along * g[piece] / norm.square(), value=-1)
        grad_g[piece] = along
    return grad_v, grad_g


def _pieces(v: Tensor) -> Iterator[slice]:
    step = max(1, PIECE // v.shape[1]) if v.device.type == "cpu" else v.shape[0]
    return (slice(start, start + step) for start in range(0, v.shape[0], step))
