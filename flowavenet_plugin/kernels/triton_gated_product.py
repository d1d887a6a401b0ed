"""The gate of a layer and the 1x1 convolution behind it as one Triton kernel; the gate never goes to memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Rows, columns and inner width of a tile.
TILE_ROWS, TILE_COLUMNS, TILE_WIDTH = 64, 128, 32


@triton.jit
def _kernel(
    pre,
    weight,
    bias,
    base,
    mask,
    out,
    alpha,
    scale,
    rows,
    columns,
    pre_row,
    base_row,
    mask_row,
    out_row,
    WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_BASE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    """One tile of (ROWS, COLUMNS); see :func:`gated_product`. Strides are in values."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None]
    wanted = inside & (column < columns)[None, :]
    pre_rows = pre + row[:, None] * pre_row
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, WIDTH, INNER):
        k = start + tl.arange(0, INNER)
        there = inside & (k < WIDTH)[None, :]
        a = tl.sigmoid(tl.load(pre_rows + k[None, :], there, 0.0).to(tl.float32))
        b = tl.sigmoid(tl.load(pre_rows + WIDTH + k[None, :], there, 0.0).to(tl.float32))
        part = tl.load(
            weight + k[:, None] * columns + column[None, :], (k < WIDTH)[:, None] & (column < columns)[None, :], 0.0
        )
        total = tl.dot((b - 2 * a * b).to(part.dtype), part, total, input_precision=PRECISION)
    total *= alpha
    if HAS_BIAS:
        total += tl.load(bias + column, column < columns, 0.0).to(tl.float32)[None, :]
    if HAS_BASE:
        old = tl.load(base + row[:, None] * base_row + column[None, :], wanted, 0.0)
        total += scale * old.to(tl.float32)
    if HAS_MASK:
        total *= tl.load(mask + row * mask_row, row < rows, 0.0).to(tl.float32)[:, None]
    place = out + row[:, None] * out_row + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), wanted)


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
    which is -tanh(filter / 2) sigmoid(gate). Values of a row lie beside each other. Float32 is multiplied in tf32 where
    ``torch.set_float32_matmul_precision`` allows it.

    Args:
        pre: Filter values, then as many gate values, shape (rows, 2 * width).
        weight: Shape (width, columns).
        bias: Shape (columns,); None: none.
        base: What is added, shape (rows, columns), may be ``out`` itself; None: nothing.
        alpha: Factor of the product.
        scale: Factor of ``base``.
        mask: 1 for rows that count, 0 for those that become zero, shape (rows, 1); None: all count.
        out: Shape (rows, columns), of the type of all others.

    Raises:
        ValueError: If shapes don't fit each other, or rows are scattered in memory.
    """
    rows, columns = out.shape
    width = weight.shape[0]
    shapes = tuple(pre.shape), weight.shape[1], tuple((out if base is None else base).shape)
    if shapes != ((rows, 2 * width), columns, tuple(out.shape)):
        raise ValueError(
            f"shapes don't fit: pre {tuple(pre.shape)}, weight {tuple(weight.shape)}, base "
            f"{None if base is None else tuple(base.shape)}, out {tuple(out.shape)}"
        )
    if not weight.is_contiguous() or any(x is not None and x.stride(1) != 1 for x in (pre, base, out)):
        raise ValueError("the values of a row must lie beside each other in memory")
    tf32 = torch.get_float32_matmul_precision() != "highest"
    given = dict(HAS_BIAS=bias is not None, HAS_BASE=base is not None, HAS_MASK=mask is not None)
    constants = dict(WIDTH=width, PRECISION="tf32" if tf32 else "ieee", **given)
    tile = dict(ROWS=TILE_ROWS, COLUMNS=TILE_COLUMNS, INNER=TILE_WIDTH)
    strides = [0 if x is None else x.stride(0) for x in (pre, base, mask, out)]
    grid = (triton.cdiv(rows, TILE_ROWS), triton.cdiv(columns, TILE_COLUMNS))
    with torch.cuda.device_of(out):  # kernels are launched on the current device
        _kernel[grid](pre, weight, bias, base, mask, out, alpha, scale, rows, columns, *strides, **constants, **tile)
    return out
