"""Dilated convolutions over rows and their backward pass, a product per tap; :mod:`.winograd` has fewer products.

Rows of zeros stand around the input, so that row r of the output reads rows r, r + dilation, r + 2 * dilation, ... of
it. Convolutions work on pieces of the output, that the processor's cache holds with all that belongs to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels import fused
from flowavenet_plugin.kernels.compiled import takes
from flowavenet_plugin.kernels.scratch import Scratch


class DirectConvolution:
    """One product per tap."""

    #: The output is computed in multiples of so many rows.
    tile = 1

    def __init__(self, taps: Tensor, dilation: int) -> None:
        """Keep the weights.

        Args:
            taps: Shape (taps, out, in).
            dilation: Rows from tap to tap.
        """
        self.weight, self.dilation = taps, dilation
        #: Rows of the input in excess of those of the output.
        self.reach = dilation * (taps.shape[0] - 1)

    def add_to(self, out: Tensor, h: Tensor, first: int, scratch: Scratch) -> None:
        """Add the convolution to ``out``.

        Its rows (n, out) are those from ``first`` on, both multiples of ``tile``; ``h`` is the whole input, shape
        (rows + reach, in).
        """
        for k, weight in enumerate(self.weight):
            out.addmm_(self._rows(h, k, first, out.shape[0]), weight.t())

    def add_gate(
        self, pre: Tensor, h: Tensor, first: int, bias: Tensor, out: Tensor, scratch: Scratch, keep: bool = True
    ) -> None:
        """Turn ``pre`` into the sigmoids (a, b) of its two halves plus convolution and bias; write b - 2 a b.

        ``h`` and ``first`` as in :meth:`add_to`; shapes of ``pre`` (n, 2 * width), of ``bias`` (2 * width,), of ``out``
        (n or less, width). Unless the sigmoids are to be kept, ``pre`` is lost.
        """
        self.add_to(pre, h, first, scratch)
        if takes(pre) and takes(out):
            fused.gate(pre, bias, out)
            return
        a, b = pre[: len(out)].add_(bias).sigmoid_().chunk(2, dim=1)
        torch.addcmul(b, a, b, value=-2, out=out)

    def backward(
        self, grad: Tensor, h: Tensor, first: int, grad_h: Tensor, grad_weight: Tensor, scratch: Scratch
    ) -> None:
        """Add the gradients of some rows; ``h`` and ``first`` as in :meth:`add_to`.

        From ``grad`` (n, out), that of the output's rows. The input's is added to ``grad_h``, of the shape of ``h``;
        that of ``weight`` is added to ``grad_weight``, or, for ``first`` = 0, written to it.
        """
        for k, weight in enumerate(self.weight):
            self._rows(grad_h, k, first, len(grad)).addmm_(grad, weight)
            grad_weight[k].addmm_(grad.t(), self._rows(h, k, first, len(grad)), beta=min(first, 1))

    def _rows(self, h: Tensor, k: int, first: int, count: int) -> Tensor:
        return h[first + k * self.dilation :][:count]

    @staticmethod
    def taps_gradient(grad_weight: Tensor) -> Tensor:
        """Turn the gradient of ``weight`` into that of the taps, (taps, out, in)."""
        return grad_weight
