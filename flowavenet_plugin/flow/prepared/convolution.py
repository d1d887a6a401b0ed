"""Dilated convolutions over rows, plain and with fewer products."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.prepared.matrices import add_product
from flowavenet_plugin.kernels import fused, winograd
from flowavenet_plugin.kernels.compiled import KINDS, takes, takes_floats
from flowavenet_plugin.kernels.scratch import Scratch


class DilatedConvolution:
    """One product per tap."""

    def __init__(self, taps: list[Tensor], dilation: int, causal: bool) -> None:
        """Keep the weights.

        Args:
            taps: Weight of each tap, shape (in, out).
            dilation: Rows from tap to tap.
            causal: Reach to the past only.
        """
        reach = dilation * (len(taps) - 1)
        self.weights, self.dilation = taps, dilation
        #: Rows before and after a row that it depends on.
        self.left = reach if causal else reach // 2
        self.right = reach - self.left

    def to(self, dtype: torch.dtype) -> DilatedConvolution:
        """Round the weights, after all arithmetic on them."""
        self.weights = [weight.to(dtype).contiguous() for weight in self.weights]
        return self

    def padded(self, rows: int) -> int:
        """Rows that are computed where ``rows`` are wanted."""
        return rows

    def add_to(self, out: Tensor, x: Tensor, scratch: Scratch) -> None:
        """Add the convolution to ``out``.

        Args:
            out: Shape (B, padded rows, out).
            x: Input, of ``left`` rows more before and ``right`` more after, shape (B, padded rows + left + right, in).
            scratch: Buffers.
        """
        for j, weight in enumerate(self.weights):
            add_product(out, x[:, j * self.dilation :][:, : out.shape[1]], weight)

    def gate(self, pre: Tensor, x: Tensor, bias: Tensor, out: Tensor, scratch: Scratch) -> Tensor:
        """Add convolution and bias to ``pre``; return b - 2 a b, with a and b the sigmoids of the two halves of it.

        Args:
            pre: Shape (B, padded rows, 2 * width).
            x: As in :meth:`add_to`.
            bias: Shape (2 * width,).
            out: Room for the result, shape (B, rows, width).
            scratch: Buffers.
        """
        self.add_to(pre, x, scratch)
        if takes(pre) and takes(out):
            for item, made in zip(pre, out, strict=True):
                fused.gate(item, bias, made)
            return out
        a, b = pre[:, : out.shape[1]].add_(bias).sigmoid_().chunk(2, dim=2)
        return torch.addcmul(b, a, b, value=-2, out=out)


class WinogradConvolution(DilatedConvolution):
    """Three taps with fewer products, see :mod:`flowavenet_plugin.kernels.winograd`."""

    def to(self, dtype: torch.dtype) -> WinogradConvolution:
        """Transform the weights, then round them."""
        weight = winograd.transformed(torch.stack([weight.t() for weight in self.weights]))
        weight = weight.float() if dtype in KINDS else weight
        shape = winograd.gate_panels_shape(*weight.shape[1:], dtype) if takes_floats(weight) else None
        self._panels = None if shape is None else winograd.gate_panels(weight, weight.new_empty(shape, dtype=dtype))
        self._kernel = winograd.WinogradConvolution(weight.to(dtype), self.dilation) if shape is None else None
        self.weights = []
        return self

    def padded(self, rows: int) -> int:
        """Rows that are computed where ``rows`` are wanted."""
        return rows + -rows % (winograd.TILE * self.dilation)

    def add_to(self, out: Tensor, x: Tensor, scratch: Scratch) -> None:
        """See :meth:`DilatedConvolution.add_to`."""
        for item, own in zip(out, x, strict=True):
            self._kernel.add_to(item, own, 0, scratch)

    def gate(self, pre: Tensor, x: Tensor, bias: Tensor, out: Tensor, scratch: Scratch) -> Tensor:
        """See :meth:`DilatedConvolution.gate`."""
        if self._panels is None:
            return super().gate(pre, x, bias, out, scratch)
        tiles = self.padded(out.shape[1]) // (winograd.TILE * self.dilation)
        for item, own, made in zip(pre, x, out, strict=True):
            winograd.convolve(self._panels, own, tiles, self.dilation, item, bias, made, scratch)
        return out
