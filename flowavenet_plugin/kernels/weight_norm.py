"""Weight normalisation per output channel (arXiv 1602.07868), w = g v / |v|, and its gradient, in few passes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flowavenet_plugin.kernels.arguments import dense
from flowavenet_plugin.kernels.compiled import call, takes_floats

#: Values of a piece on a CPU: both of its operands fit the cache.
PIECE = 2**18


def normalise(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write g v / |v| to ``out``, of any floating type; shapes (n, m), of g (n, 1)."""
    if takes_floats(v, g, out):
        (n, m), dtype = v.shape, v.dtype
        call("normalise", v.data_ptr(), dense("g", g, dtype, n, 1), dense("out", out, dtype, n, m), n, m)
        return
    for piece in _pieces(v):
        torch.mul(v[piece], g[piece] / v[piece].norm(dim=1, keepdim=True), out=out[piece])


def normalise_backward(grad: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Turn ``grad``, the normalised weight's gradient (n, m), into that of v, in place; return that of g, (n, 1)."""
    grad_g = torch.empty_like(g)
    if takes_floats(grad, v, g):
        (n, m), dtype = v.shape, v.dtype
        addresses = dense("grad", grad, dtype, n, m), v.data_ptr(), dense("g", g, dtype, n, 1), grad_g.data_ptr()
        call("normalise_gradients", *addresses, n, m)
        return grad_g
    for piece in _pieces(v):
        norm = v[piece].norm(dim=1, keepdim=True)
        grad_g[piece] = along = (grad[piece] * v[piece]).sum(dim=1, keepdim=True) / norm
        factor = g[piece] / norm
        grad[piece].addcmul_(v[piece], along / norm, value=-1).mul_(factor)
    return grad_g


def _pieces(v: Tensor) -> Iterator[slice]:
    step = max(1, PIECE // v.shape[1]) if v.device.type == "cpu" else v.shape[0]
    return (slice(start, start + step) for start in range(0, v.shape[0], step))
