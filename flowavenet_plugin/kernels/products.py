"""Products of rows with fixed matrices, and what is added to them, in one pass of csrc/products.c."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.kernels.compiled import KINDS, call, takes


def panels(weight: Tensor) -> Tensor | None:
    """Put a matrix in the order in which :func:`panel_product` reads it.

    Args:
        weight: Shape (in, out).

    Returns:
        Of as many columns as fit the registers all rows, those of bfloat16 in pairs, shape (panels, in, columns); None:
        no compiled function takes such a matrix.
    """
    if not takes(weight.contiguous()) or (weight.dtype == torch.bfloat16 and weight.shape[0] % 2):
        return None
    columns = call("panel_columns", ())
    whole = F.pad(weight, (0, -weight.shape[1] % columns))
    pack = 4 // weight.element_size()
    parts = whole.view(-1, pack, whole.shape[1] // columns, columns)
    return parts.permute(2, 0, 3, 1).reshape(parts.shape[2], -1, columns).contiguous()


def panel_product(
    x: Tensor,
    panels: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    factor: float = 1.0,
    relu: bool = False,
) -> None:
    """Write x @ weight + bias + factor * other, or its relu.

    Args:
        x: Of the precision of the panels, as all here, shape (rows, in); what a row holds lies beside each other.
        panels: From :func:`panels`.
        out: Written, shape (rows, out).
        bias: Shape (out,); None: none.
        other: Shape (rows, out), may be ``out``; None: nothing.
        factor: See above.
        relu: See above.
    """
    strides = (x.stride(0), 0 if other is None else other.stride(0), out.stride(0))
    sizes = (*x.shape, out.shape[1], *strides, int(relu))
    call(f"panel_product_{KINDS[x.dtype]}", (x, panels, bias, other, out), *sizes, float(factor))
