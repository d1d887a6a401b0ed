"""Gates and products with few columns in few passes over memory, by the compiled functions of csrc/passes.c.

What is computed is that of :mod:`.gated_stack`; :mod:`.compiled` says when it is at hand. All raise a ``ValueError``
for tensors of another type, shape or layout than what is said here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels.arguments import beginning, dense
from flowavenet_plugin.kernels.compiled import KINDS, call


def gate(pre: Tensor, bias: Tensor, out: Tensor) -> None:
    """Write b - 2 a b, with a and b the sigmoids of the two halves of bias + pre; they take the place of ``pre``.

    All of one precision and contiguous; shapes: ``pre`` (rows or more, 2 * width), ``bias`` (2 * width,), ``out``
    (rows, width).
    """
    (count, width), dtype = out.shape, pre.dtype
    pre_at = beginning("pre", pre, dtype, count, 2 * width)
    bias_at, out_at = dense("bias", bias, dtype, 2 * width), dense("out", out, dtype, count, width)
    call(f"gate_{KINDS[dtype]}", pre_at, bias_at, out_at, count, width)


def gate_gradients(grad: Tensor, gate: Tensor, sigmoids: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of the values that :func:`gate` takes sigmoids of; return its sum over the rows, float32.

    All of one precision and contiguous; shapes: ``grad`` of the gate and its value ``gate``, b - 2 a b, (rows, width),
    ``sigmoids`` a and b (rows, 2 * width), ``out`` (rows or more, 2 * width), the sum (2 * width,).
    """
    (count, width), dtype = grad.shape, grad.dtype
    sums = torch.zeros(2 * width, dtype=torch.float32, device="cpu")
    addresses = (
        dense("grad", grad, dtype, count, width),
        dense("gate", gate, dtype, count, width),
        dense("sigmoids", sigmoids, dtype, count, 2 * width),
        beginning("out", out, dtype, count, 2 * width),
    )
    call(f"gate_gradients_{KINDS[dtype]}", *addresses, sums.data_ptr(), count, width)
    return sums


def front(x: Tensor, stride: int, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Write relu(x @ weight + bias) of overlapping windows of x.

    Args:
        x: Values, float32, contiguous; row i of the product reads those from i * stride on.
        stride: Values from row to row.
        weight: float32, shape (size of a window, width), contiguous.
        bias: float32, shape (width,).
        out: Written, float32 or bfloat16, shape (rows, width), contiguous.
    """
    (count, width), size, dtype = out.shape, len(weight), torch.float32
    addresses = (
        beginning("x", x, dtype, (count - 1) * stride + size if count else 0),
        dense("weight", weight, dtype, size, width),
        dense("bias", bias, dtype, width),
        dense("out", out, out.dtype, count, width),
    )
    call(f"front_{KINDS[out.dtype]}", *addresses, count, stride, size, width)
    return out


def end(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Write x @ weight.t() + bias to ``out``, for few columns; return it.

    ``x`` is float32 or bfloat16, all else float32; contiguous. Shapes: ``x`` (rows, width), ``weight`` (columns,
    width), ``bias`` (columns,), ``out`` (rows, columns).
    """
    (count, width), columns, dtype = x.shape, len(weight), torch.float32
    addresses = (
        dense("x", x, x.dtype, count, width),
        dense("weight", weight, dtype, columns, width),
        dense("bias", bias, dtype, columns),
        dense("out", out, dtype, count, columns),
    )
    call(f"end_{KINDS[x.dtype]}", *addresses, count, width, columns)
    return out
