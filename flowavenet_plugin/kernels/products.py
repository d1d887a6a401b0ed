"""Products of rows with matrices, and what is added to them: on a CPU in one pass of csrc/products.c, else by torch.

What PyTorch's libraries reach in float32 beside other work is two thirds of what a processor with AVX-512 can do; the
compiled product, whose matrix was put in order beforehand, reaches five sixths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels.arguments import dense, rows, strided, with_dense_rows
from flowavenet_plugin.kernels.choices import wants_compiled_products
from flowavenet_plugin.kernels.compiled import KINDS, call, constant, functions
from flowavenet_plugin.kernels.scratch import Scratch


class Matrix:
    """A matrix for many products."""

    def __init__(self, weight: Tensor, scratch: Scratch | None = None, name: str = "", in_order: bool = True) -> None:
        """Put it in order where compiled products take it and are wanted.

        Args:
            weight: Shape (in, out).
            scratch: Buffers, of which the one called ``name`` keeps it; None: memory of its own does.
            name: See ``scratch``.
            in_order: False: leave it as it is, for few rows.
        """
        ours = in_order and weight.device.type == "cpu" and wants_compiled_products(weight.dtype)
        shape = panels_shape(*weight.shape, weight.dtype) if ours else None
        self.panels = None
        if shape is not None:
            room = weight.new_empty(shape) if scratch is None else scratch.take(name, shape, weight)
            self.panels = panels(weight[None], room)
        self.weight = weight if shape is None else None
        self._panel_columns = 0 if shape is None else shape[3]
        self.shape, self.dtype = tuple(weight.shape), weight.dtype

    def multiply(
        self,
        x: Tensor,
        out: Tensor,
        bias: Tensor | None = None,
        other: Tensor | None = None,
        alpha: float = 1.0,
        factor: float = 1.0,
        relu: bool = False,
    ) -> Tensor:
        """Write alpha * x @ weight + bias + factor * other, or its relu, to ``out``, and return it.

        All are of the matrix's precision: ``x`` of the shape (rows, in), ``out`` and ``other``, which may be the same,
        (rows, out), ``bias`` (out,). What a row of ``out`` holds lies beside each other; where that isn't so of ``x``
        or ``other``, they are copied.

        Raises:
            ValueError: If compiled functions can't take a tensor, for its type, shape or layout.
        """
        (inner, columns), dtype, count = self.shape, self.dtype, x.shape[0]
        if self.panels is None:
            if other is None and bias is None:
                out.addmm_(x, self.weight, beta=0, alpha=alpha)
            elif other is None:
                torch.addmm(bias, x, self.weight, alpha=alpha, out=out)
            elif bias is None:
                (out if other is out else out.copy_(other)).addmm_(x, self.weight, beta=factor, alpha=alpha)
            else:
                torch.add(bias, other, alpha=factor, out=out).addmm_(x, self.weight, alpha=alpha)
            return out.relu_() if relu else out
        if self._panel_columns != constant("panel_columns"):
            raise ValueError("the matrix was put in order for another processor than functions are compiled for now")
        x = with_dense_rows(x, pairs=dtype == torch.bfloat16)
        x_at, x_step = rows("x", x, dtype, count, inner)
        out_at, out_step = rows("out", out, dtype, count, columns, written=True)
        other_at, other_step = None, 0
        if other is not None:
            other = with_dense_rows(other)
            other_at, other_step = rows("other", other, dtype, count, columns)
        bias_at = None if bias is None else dense("bias", bias, dtype, columns)
        sizes = (count, inner, columns, x_step, other_step, out_step, relu)
        addresses = (x_at, self.panels.data_ptr(), bias_at, other_at, out_at)
        call(f"panel_product_{KINDS[dtype]}", *addresses, *sizes, alpha, factor)
        return out


def panels_shape(inner: int, out: int, dtype: torch.dtype, planes: int = 1) -> tuple[int, ...] | None:
    """Return the shape of what :func:`panels` makes; None: no compiled function takes such matrices."""
    odd = dtype == torch.bfloat16 and inner % 2
    if functions() is None or dtype not in KINDS or odd:
        return None
    columns = constant("panel_columns")
    return -(-out // columns), planes, inner, columns


def panels(weight: Tensor, room: Tensor) -> Tensor:
    """Put matrices in the order in which compiled products read them.

    Args:
        weight: On a CPU, shape (planes, in, out); copied unless rows or columns are dense.
        room: Of the same precision, shape from :func:`panels_shape`.

    Returns:
        ``room``: of as many columns as fit the registers all matrices' rows, those of bfloat16 in pairs.

    Raises:
        ValueError: If compiled functions can't take a tensor, for its type, shape or layout.
    """
    (planes, inner, out), dtype = weight.shape, weight.dtype
    rows_are_dense = weight.stride(2) == 1 or out == 1
    if not (rows_are_dense or weight.stride(1) == 1 or inner == 1):
        weight, rows_are_dense = weight.contiguous(), True
    shape = panels_shape(inner, out, dtype, planes)
    if shape is None:
        raise ValueError(f"no compiled function takes matrices of {dtype}, {inner} to {out}")
    room_at = dense("room", room, dtype, *shape)
    weight_at = strided("weight", weight, dtype, planes, inner, out)
    layout = (weight.stride(0), weight.stride(1 if rows_are_dense else 2), not rows_are_dense)
    call(f"panels_{KINDS[dtype]}", weight_at, room_at, planes, inner, out, *layout)
    return room


def thin_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x @ weight.t() for few rows: the time goes into reading the weights once, not into arithmetic.

    For float32 on a CPU by oneDNN, which is up to twice as fast here as the BLAS that PyTorch's ``mm`` calls.

    Args:
        x: Shape (rows, in).
        weight: Shape (out, in), its transpose contiguous or itself.
    """
    if x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and _has_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight.t()


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
