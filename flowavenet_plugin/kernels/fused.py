"""Gates, products with few columns and norms in few passes over memory, by the compiled functions of csrc/passes.c.

What is computed is that of :mod:`.gated_stack` and :mod:`.weight_norm`; :mod:`.compiled` says when it is at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels.compiled import KINDS, call


def gate(pre: Tensor, bias: Tensor, out: Tensor) -> None:
    """Write b - 2 a b, with a and b the sigmoids of the two halves of bias + pre; they take the place of ``pre``.

    Args:
        pre: Shape (rows, 2 * width), contiguous, as all here.
        bias: Of the precision of ``pre``, shape (2 * width,).
        out: Written, shape (rows, width).
    """
    call(f"gate_{KINDS[pre.dtype]}", (pre, bias, out), *out.shape)


def gate_gradients(grad: Tensor, gate: Tensor, sigmoids: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of the values that :func:`gate` takes sigmoids of; return its sum over the rows.

    Args:
        grad: Gradient of the gate, shape (rows, width), contiguous, as all here.
        gate: Its value, b - 2 a b, shape (rows, width).
        sigmoids: a and b, shape (rows, 2 * width).
        out: Written, shape (rows or more, 2 * width).

    Returns:
        The sum, float32, shape (2 * width,).
    """
    sums = torch.zeros(sigmoids.shape[1])
    call(f"gate_gradients_{KINDS[grad.dtype]}", (grad, gate, sigmoids, out, sums), *grad.shape)
    return sums


def front(x: Tensor, stride: int, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Write relu(x @ weight + bias) of overlapping windows of x.

    Args:
        x: Values, float32, contiguous; row i of the product reads those from i * stride on.
        stride: Values from row to row.
        weight: float32, shape (size of a window, width), contiguous.
        bias: float32, shape (width,).
        out: Written, shape (rows, width), contiguous.
    """
    call(f"front_{KINDS[out.dtype]}", (x, weight, bias, out), len(out), stride, *weight.shape)
    return out


def end(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Write x @ weight.t() + bias, for few columns.

    Args:
        x: Contiguous, as all here, shape (rows, width).
        weight: float32, as ``bias`` and ``out``, shape (columns, width).
        bias: Shape (columns,).
        out: Written, shape (rows, columns).
    """
    call(f"end_{KINDS[x.dtype]}", (x, weight, bias, out), *x.shape, len(weight))
    return out


def normalise(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write g v / |v| to ``out``; all float32 and contiguous, shapes (n, m), (n, 1) and (n, m)."""
    call("normalise", (v, g, out), *v.shape)


def normalise_gradients(grad: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Turn ``grad``, that of :func:`normalise`'s result, into that of v, in place; return that of g, (n, 1)."""
    grad_g = torch.empty_like(g)
    call("normalise_gradients", (grad, v, g, grad_g), *v.shape)
    return grad_g
