"""Dilated convolutions over rows and their backward pass: a product per tap, or fewer products (Winograd).

Rows of zeros stand around the input, so that row r of the output reads rows r, r + dilation, r + 2 * dilation, ... of
it. Both kinds work on pieces of the output, that the processor's cache holds with all that belongs to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels import fused
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

        Args:
            out: Rows from ``first`` on, shape (n, out).
            h: The whole input, shape (rows + reach, in).
            first: A multiple of ``tile``, as ``n`` is.
            scratch: Buffers.
        """
        for k, weight in enumerate(self.weight):
            out.addmm_(self._rows(h, k, first, out.shape[0]), weight.t())

    def add_gate(self, pre: Tensor, h: Tensor, first: int, bias: Tensor, out: Tensor, scratch: Scratch) -> None:
        """Turn ``pre`` into the sigmoids (a, b) of its two halves plus convolution and bias; write b - 2 a b.

        Args:
            pre: As ``out`` of :meth:`add_to`, shape (n, 2 * width).
            h: As in :meth:`add_to`.
            first: As in :meth:`add_to`.
            bias: Shape (2 * width,).
            out: Written, shape (n or less, width).
            scratch: Buffers.
        """
        self.add_to(pre, h, first, scratch)
        if fused.takes(pre):
            fused.plain_gate(pre, bias, out)
            return
        a, b = pre[: len(out)].add_(bias).sigmoid_().chunk(2, dim=1)
        torch.addcmul(b, a, b, value=-2, out=out)

    def backward(
        self, grad: Tensor, h: Tensor, first: int, grad_h: Tensor, grad_weight: Tensor, scratch: Scratch
    ) -> None:
        """Add the gradients of some rows.

        Args:
            grad: Gradient of rows of the output from ``first`` on, shape (n, out).
            h: As in :meth:`add_to`.
            first: As in :meth:`add_to`.
            grad_h: The input's gradient is added to it, shape of ``h``.
            grad_weight: That of ``weight`` is added to it, or, for ``first`` = 0, written to it.
            scratch: Buffers.
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


class WinogradConvolution(DirectConvolution):
    """Three taps by Winograd's F(4, 3): four rows of the output from six products instead of twelve.

    Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.3, along one axis:
    y = A' [(G g) * (B' d)] of six inputs d, three taps g and four outputs y. With a dilation the six and the four are
    rows so far apart. The gradients are the transposed sums: B [(G g)' (A dy)] for the input, G' [(A dy)' (B' d)] for
    the taps.
    """

    def __init__(self, weight: Tensor, dilation: int) -> None:
        """Keep the weights.

        Args:
            weight: From :meth:`transformed`.
            dilation: Rows from tap to tap.
        """
        self.weight, self.dilation = weight, dilation
        self.reach, self.tile = 2 * dilation, 4 * dilation

    @staticmethod
    def transformed(taps: Tensor, room: Tensor | None = None) -> Tensor:
        """Transform three taps (3, out, in) to G g, shape (6, out, in), in ``room`` if there is one."""
        g0, g1, g2 = taps
        u = taps.new_empty(6, *taps.shape[1:]) if room is None else room
        both = g0 + g2
        torch.add(both, g1, out=u[1]).mul_(-1 / 6)
        torch.sub(both, g1, out=u[2]).mul_(-1 / 6)
        torch.add(g0, g2, alpha=4, out=both)
        torch.add(both, g1, alpha=2, out=u[3]).mul_(1 / 24)
        torch.sub(both, g1, alpha=2, out=u[4]).mul_(1 / 24)
        torch.mul(g0, 1 / 4, out=u[0])
        u[5] = g2
        return u

    def add_to(self, out: Tensor, h: Tensor, first: int, scratch: Scratch) -> None:
        """See :meth:`DirectConvolution.add_to`."""
        y = self._products(h, first, len(out), scratch)
        if fused.takes(y):
            fused.add_outputs(y, self.dilation, out)
            return
        y = y.view(6, -1, self.dilation, out.shape[1])
        sums = scratch.take("winograd_sums", (2, *y.shape[1:]), out)
        near, far = torch.add(y[1], y[2], out=sums[0]), torch.add(y[3], y[4], out=sums[1])
        near_odd, far_odd = y[1].sub_(y[2]), y[3].sub_(y[4])
        rows = out.view(-1, 4, self.dilation, out.shape[1])
        rows[:, 0].add_(y[0].add_(near).add_(far))
        rows[:, 1].add_(near_odd).add_(far_odd, alpha=2)
        rows[:, 2].add_(near).add_(far, alpha=4)
        rows[:, 3].add_(near_odd).add_(y[5].add_(far_odd, alpha=8))

    def backward(
        self, grad: Tensor, h: Tensor, first: int, grad_h: Tensor, grad_weight: Tensor, scratch: Scratch
    ) -> None:
        """See :meth:`DirectConvolution.backward`."""
        dy = self._transformed_gradient(grad, scratch)
        x = self._transformed(h, first, len(grad), scratch)
        grad_weight.baddbmm_(dy.transpose(1, 2), x, beta=min(first, 1))
        d = torch.bmm(dy, self.weight, out=x)
        if fused.takes(d):
            fused.add_input_gradients(d, first, self.dilation, grad_h)
            return
        d = d.view(6, -1, self.dilation, h.shape[1])
        self._add_input_gradient(d, self._inputs(grad_h, first, len(grad)), scratch)

    def add_gate(self, pre: Tensor, h: Tensor, first: int, bias: Tensor, out: Tensor, scratch: Scratch) -> None:
        """See :meth:`DirectConvolution.add_gate`."""
        if fused.takes(pre):
            fused.gate(self._products(h, first, len(pre), scratch), pre, bias, self.dilation, out, keep=True)
        else:
            super().add_gate(pre, h, first, bias, out, scratch)

    def gate(self, pre: Tensor, h: Tensor, bias: Tensor, out: Tensor, scratch: Scratch) -> Tensor:
        """Write b - 2 a b, with a and b the sigmoids of the two halves of pre, bias and the convolution, in few passes.

        Args:
            pre: Shape (rows, 2 * width); rows that fill the last tile may be missing.
            h: As in :meth:`add_to`, whole tiles.
            bias: Shape (2 * width,).
            out: Written, shape (rows, width).
            scratch: Buffers.
        """
        y = self._products(h, 0, len(h) - self.reach, scratch)
        return fused.gate(y, pre, bias, self.dilation, out)

    def _products(self, h: Tensor, first: int, count: int, scratch: Scratch) -> Tensor:
        """Return (G g) * (B' d), shape (6, tiles * dilation, out)."""
        x = self._transformed(h, first, count, scratch)
        y = scratch.take("winograd_y", (6, x.shape[1], self.weight.shape[1]), x)
        return torch.bmm(x, self.weight.transpose(1, 2), out=y)

    def _inputs(self, h: Tensor, first: int, count: int) -> list[Tensor]:
        """Return the six inputs of each tile, shape (tiles, dilation, in) each, views."""
        step, width = self.dilation, h.shape[1]
        shape, strides = (count // self.tile, step, width), (self.tile * width, width, 1)
        start = h.storage_offset()
        return [h.as_strided(shape, strides, start + (first + j * step) * width) for j in range(6)]

    def _transformed(self, h: Tensor, first: int, count: int, scratch: Scratch) -> Tensor:
        """Return B' d, shape (6, tiles * dilation, in)."""
        x = scratch.take("winograd_x", (6, count // self.tile, self.dilation, h.shape[1]), h)
        if fused.takes(h):
            return fused.inputs(h, first, self.dilation, x.view(6, -1, h.shape[1]))
        d = self._inputs(h, first, count)
        even, odd = scratch.take("winograd_parts", (2, *d[0].shape), h)
        torch.sub(d[4], d[2], alpha=4, out=even)
        torch.sub(d[3], d[1], alpha=4, out=odd)
        torch.add(even, odd, out=x[1])
        torch.sub(even, odd, out=x[2])
        torch.sub(d[4], d[2], out=even)
        torch.sub(d[3], d[1], out=odd)
        torch.add(even, odd, alpha=2, out=x[3])
        torch.sub(even, odd, alpha=2, out=x[4])
        torch.sub(even, d[2], alpha=4, out=x[0]).add_(d[0], alpha=4)
        torch.sub(d[5], d[3], alpha=5, out=x[5]).add_(d[1], alpha=4)
        return x.view(6, -1, h.shape[1])

    def _transformed_gradient(self, grad: Tensor, scratch: Scratch) -> Tensor:
        """Return A dy, shape (6, tiles * dilation, out)."""
        rows = grad.view(-1, 4, self.dilation, grad.shape[1]).unbind(1)
        y = scratch.take("winograd_y", (6, *rows[0].shape), grad)
        if fused.takes(grad):
            return fused.gradients(grad, self.dilation, y.view(6, -1, grad.shape[1]))
        even, odd = scratch.take("winograd_sums", (2, *rows[0].shape), grad)
        torch.add(rows[0], rows[2], out=even)
        torch.add(rows[1], rows[3], out=odd)
        torch.add(even, odd, out=y[1])
        torch.sub(even, odd, out=y[2])
        torch.add(rows[0], rows[2], alpha=4, out=even)
        torch.add(rows[1], rows[3], alpha=4, out=odd)
        torch.add(even, odd, alpha=2, out=y[3])
        torch.sub(even, odd, alpha=2, out=y[4])
        y[0], y[5] = rows[0], rows[3]
        return y.view(6, -1, grad.shape[1])

    @staticmethod
    def _add_input_gradient(d: Tensor, rows: list[Tensor], scratch: Scratch) -> None:
        """Add B d to the rows."""
        near, far = scratch.take("winograd_parts", (2, *d.shape[1:]), d)
        torch.add(d[1], d[2], out=near)
        torch.add(d[3], d[4], out=far)
        near_odd, far_odd = d[1].sub_(d[2]), d[3].sub_(d[4])
        rows[4].add_(d[0]).add_(near).add_(far)
        rows[1].add_(near_odd.sub_(d[5]), alpha=-4).add_(far_odd, alpha=-2)
        rows[3].add_(near_odd).add_(far_odd, alpha=2).sub_(d[5], alpha=4)  # near_odd holds one already
        rows[2].sub_(near.mul_(4).add_(far)).sub_(d[0], alpha=5)
        rows[0].add_(d[0], alpha=4)
        rows[5].add_(d[5])

    @staticmethod
    def taps_gradient(grad_weight: Tensor) -> Tensor:
        """Turn the gradient of ``weight`` into that of the taps, (3, out, in); the former is lost."""
        u = grad_weight
        near, far = u[1] + u[2], u[3] + u[4]
        near_odd, far_odd = u[1].sub_(u[2]), u[3].sub_(u[4])
        g0 = near.mul_(-1 / 6).add_(far, alpha=1 / 24)
        g2 = torch.add(u[5], g0).add_(far, alpha=1 / 8)
        g0.add_(u[0], alpha=1 / 4)
        return torch.stack([g0, near_odd.mul_(-1 / 6).add_(far_odd, alpha=1 / 12), g2])
