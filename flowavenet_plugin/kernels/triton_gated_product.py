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
    scale,
    rows,
    columns,
    pre_item,
    pre_row,
    base_item,
    base_row,
    mask_item,
    mask_row,
    out_item,
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
    """One tile of (ROWS, COLUMNS) of one item; see :func:`gated_product`. Strides are in values."""
    item = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None]
    wanted = inside & (column < columns)[None, :]
    pre_rows = pre + item * pre_item + row[:, None] * pre_row
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
    if HAS_BIAS:
        total += tl.load(bias + column, column < columns, 0.0).to(tl.float32)[None, :]
    if HAS_BASE:
        old = tl.load(base + item * base_item + row[:, None] * base_row + column[None, :], wanted, 0.0)
        total += scale * old.to(tl.float32)
    if HAS_MASK:
        total *= tl.load(mask + item * mask_item + row * mask_row, row < rows, 0.0).to(tl.float32)[:, None]
    place = out + item * out_item + row[:, None] * out_row + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), wanted)


def gated_product(
    pre: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    base: Tensor | None,
    scale: float,
    mask: Tensor | None,
    out: Tensor,
) -> Tensor:
    """See :func:`flowavenet_plugin.kernels.gated_product.gated_product`; values of a row lie beside each other.

    Float32 is multiplied in tf32 where ``torch.set_float32_matmul_precision`` allows it.

    Raises:
        ValueError: If shapes don't fit each other, or rows are scattered in memory.
    """
    batch, rows, columns = out.shape
    width = weight.shape[0]
    shapes = tuple(pre.shape), weight.shape[1], tuple((out if base is None else base).shape)
    if shapes != ((batch, rows, 2 * width), columns, tuple(out.shape)):
        raise ValueError(
            f"shapes don't fit: pre {tuple(pre.shape)}, weight {tuple(weight.shape)}, base "
            f"{None if base is None else tuple(base.shape)}, out {tuple(out.shape)}"
        )
    if not weight.is_contiguous() or any(x is not None and x.stride(2) != 1 for x in (pre, base, out)):
        raise ValueError("the values of a row must lie beside each other in memory")
    tf32 = torch.get_float32_matmul_precision() != "highest"
    base_strides = (0, 0) if base is None else base.stride()[:2]
    mask_strides = (0, 0) if mask is None else mask.stride()[:2]
    grid = (triton.cdiv(rows, TILE_ROWS), triton.cdiv(columns, TILE_COLUMNS), batch)
    with torch.cuda.device_of(out):  # kernels are launched on the current device
        _kernel[grid](
            pre,
            weight,
            bias,
            base,
            mask,
            out,
            scale,
            rows,
            columns,
            *pre.stride()[:2],
            *base_strides,
            *mask_strides,
            *out.stride()[:2],
            WIDTH=width,
            HAS_BIAS=bias is not None,
            HAS_BASE=base is not None,
            HAS_MASK=mask is not None,
            PRECISION="tf32" if tf32 else "ieee",
            ROWS=TILE_ROWS,
            COLUMNS=TILE_COLUMNS,
            INNER=TILE_WIDTH,
        )
    return out
