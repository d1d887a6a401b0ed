"""Dilated convolutions over rows, plain and with fewer products."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.prepared.matrices import add_product
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


class WinogradConvolution(DilatedConvolution):
    """Three taps by Winograd's F(2, 3): two rows of the result from four products instead of six.

    With inputs d0...d3 and taps g0, g1, g2 the results are m0 + m1 + m2 and m1 - m2 - m3, of m0 = (d0 - d2) g0,
    m1 = (d1 + d2)(g0 + g1 + g2)/2, m2 = (d2 - d1)(g0 - g1 + g2)/2, m3 = (d1 - d3) g2.
    """

    def __init__(self, taps: list[Tensor], dilation: int, causal: bool) -> None:
        """Transform the weights; arguments as in :class:`DilatedConvolution`, with three taps."""
        super().__init__(taps, dilation, causal)
        g0, g1, g2 = taps
        self.weights = [g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, -g2]

    def padded(self, rows: int) -> int:
        """Rows that are computed where ``rows`` are wanted."""
        return rows + -rows % (2 * self.dilation)

    def add_to(self, out: Tensor, x: Tensor, scratch: Scratch) -> None:
        """See :meth:`DilatedConvolution.add_to`."""
        batch, rows, width = out.shape
        pairs, step = rows // (2 * self.dilation), self.dilation
        d = [self._every_other(x, j, pairs) for j in range(4)]
        shape = (batch, rows // 2, x.shape[2])
        v = [scratch.take(f"winograd{i}", shape, x) for i in range(4)]
        places = [value.view(batch, pairs, step, -1) for value in v]
        torch.sub(d[0], d[2], out=places[0])
        torch.add(d[1], d[2], out=places[1])
        torch.sub(d[2], d[1], out=places[2])
        torch.sub(d[1], d[3], out=places[3])
        a, b = (scratch.take(name, (batch, rows // 2, width), x) for name in ("winograd_a", "winograd_b"))
        torch.matmul(v[1], self.weights[1], out=a)
        torch.matmul(v[2], self.weights[2], out=b)
        difference = torch.sub(a, b, out=scratch.take("winograd_c", (batch, rows // 2, width), x))
        add_product(a.add_(b), v[0], self.weights[0])
        add_product(difference, v[3], self.weights[3])
        both = out.view(batch, pairs, 2, step, width)
        both[:, :, 0] += a.view(batch, pairs, step, width)
        both[:, :, 1] += difference.view(batch, pairs, step, width)

    def _every_other(self, x: Tensor, j: int, pairs: int) -> Tensor:
        """Return the j-th input of each pair of results, shape (B, pairs, dilation, in), a view."""
        batch, _, width = x.shape
        row, step = x.stride(1), self.dilation
        return x[:, j * step :].as_strided(
            (batch, pairs, step, width), (x.stride(0), 2 * step * row, row, 1), x.storage_offset() + j * step * row
        )
