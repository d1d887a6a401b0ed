"""Products of rows with matrices, and what is added to them: on a CPU in one pass of csrc/products.c, else by torch.

What PyTorch's libraries reach in float32 beside other work is two thirds of what a processor with AVX-512 can do; the
compiled product, whose matrix was put in order beforehand, reaches five sixths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels.compiled import KINDS, call, functions
from flowavenet_plugin.kernels.scratch import Scratch


class Matrix:
    """A matrix for many products."""

    def __init__(self, weight: Tensor, scratch: Scratch | None = None, name: str = "", in_order: bool = True) -> None:
        """Put it in order where compiled products take it.

        Args:
            weight: Shape (in, out); rows or columns are contiguous.
            scratch: Buffers, of which one keeps it; None: memory of its own does.
            name: Of that buffer.
            in_order: False: leave it as it is, for few rows.
        """
        shape = panels_shape(*weight.shape, weight.dtype) if in_order and weight.device.type == "cpu" else None
        self.panels = None
        if shape is not None:
            room = weight.new_empty(shape) if scratch is None else scratch.take(name, shape, weight)
            self.panels = panels(weight[None], room)
        self.weight = weight if shape is None else None

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
        """Write alpha * x @ weight + bias + factor * other, or its relu.

        Args:
            x: Of the matrix's precision, as all here, shape (rows, in); what a row holds lies beside each other.
            out: Written, shape (rows, out), likewise.
            bias: Shape (out,); None: none.
            other: Shape (rows, out), likewise, may be ``out``; None: nothing.
            alpha: See above.
            factor: See above.
            relu: See above.

        Returns:
            ``out``.
        """
        if self.panels is not None:
            strides = (x.stride(0), 0 if other is None else other.stride(0), out.stride(0))
            numbers = (*x.shape, out.shape[1], *strides, int(relu), float(alpha), float(factor))
            call(f"panel_product_{KINDS[x.dtype]}", (x, self.panels, bias, other, out), *numbers)
            return out
        if other is None and bias is None:
            out.addmm_(x, self.weight, beta=0, alpha=alpha)
        elif other is None:
            torch.addmm(bias, x, self.weight, alpha=alpha, out=out)
        elif bias is None:
            (out if other is out else out.copy_(other)).addmm_(x, self.weight, beta=factor, alpha=alpha)
        else:
            torch.add(bias, other, alpha=factor, out=out).addmm_(x, self.weight, alpha=alpha)
        return out.relu_() if relu else out


def has_matrix_units(dtype: torch.dtype) -> bool:
    """Say whether the processor has units for products of matrices (AMX), which the libraries use."""
    return dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()


def panels_shape(inner: int, out: int, dtype: torch.dtype, planes: int = 1) -> tuple[int, ...] | None:
    """Return the shape of what :func:`panels` makes; None: no compiled function takes such matrices."""
    odd = dtype == torch.bfloat16 and inner % 2
    if functions() is None or dtype not in KINDS or odd or has_matrix_units(dtype):
        return None
    columns = call("panel_columns", ())
    return -(-out // columns), planes, inner, columns


def panels(weight: Tensor, room: Tensor) -> Tensor:
    """Put matrices in the order in which compiled products read them.

    Args:
        weight: On a CPU, shape (planes, in, out); rows or columns are contiguous.
        room: Of the same precision, shape from :func:`panels_shape`.

    Returns:
        ``room``: of as many columns as fit the registers all matrices' rows, those of bfloat16 in pairs.
    """
    transposed = weight.stride(2) != 1
    layout = (weight.stride(0), weight.stride(1 + transposed), int(transposed))
    call(f"panels_{KINDS[weight.dtype]}", (weight, room), *weight.shape, *layout)
    return room
