"""Dilated convolutions of three taps over rows with fewer products: Winograd's F(6, 3).

Six rows of the output come from eight products instead of eighteen: y = A' [(G g) * (B' d)] of eight inputs d, three
taps g and six outputs y; with a dilation the eight and the six are rows so far apart. Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", arXiv 1509.09308, along one axis; the matrices are those of the points 0, 1, -1, 2,
-2, 1/2, -1/2 and infinity. The gradients are the transposed sums: B [(G g)' (A dy)] for the input, G' [(A dy)' (B' d)]
for the taps. On a CPU with a compiler these sums are functions of csrc/winograd.c, with products and gate in the
forward pass, and with the products for the inputs on the way back; elsewhere torch computes the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from flowavenet_plugin.kernels.compiled import KINDS, call, takes_floats
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.products import panels, panels_shape
from flowavenet_plugin.kernels.scratch import Scratch

TILE, PLANES = 6, 8
#: A', B' and G.
OUTPUTS = (
    (1, 1, 1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 1 / 2, -1 / 2, 0),
    (0, 1, 1, 4, 4, 1 / 4, 1 / 4, 0),
    (0, 1, -1, 8, -8, 1 / 8, -1 / 8, 0),
    (0, 1, 1, 16, 16, 1 / 16, 1 / 16, 0),
    (0, 1, -1, 32, -32, 1 / 32, -1 / 32, 1),
)
INPUTS = (
    (1, 0, -21 / 4, 0, 21 / 4, 0, -1, 0),
    (0, 1, 1, -17 / 4, -17 / 4, 1, 1, 0),
    (0, -1, 1, 17 / 4, -17 / 4, -1, 1, 0),
    (0, 1 / 2, 1 / 4, -5 / 2, -5 / 4, 2, 1, 0),
    (0, -1 / 2, 1 / 4, 5 / 2, -5 / 4, -2, 1, 0),
    (0, 2, 4, -5 / 2, -5, 1 / 2, 1, 0),
    (0, -2, 4, 5 / 2, -5, -1 / 2, 1, 0),
    (0, -1, 0, 21 / 4, 0, -21 / 4, 0, 1),
)
TAPS = (
    (1, 0, 0),
    (-2 / 9, -2 / 9, -2 / 9),
    (-2 / 9, 2 / 9, -2 / 9),
    (1 / 90, 2 / 90, 4 / 90),
    (1 / 90, -2 / 90, 4 / 90),
    (32 / 45, 16 / 45, 8 / 45),
    (32 / 45, -16 / 45, 8 / 45),
    (0, 0, 1),
)


class WinogradConvolution(DirectConvolution):
    """Three taps by fewer products, see the module."""

    def __init__(self, weight: Tensor, dilation: int) -> None:
        """Keep the weights.

        Args:
            weight: From :func:`transformed`.
            dilation: Rows from tap to tap.
        """
        self.weight, self.dilation = weight, dilation
        self.reach, self.tile = 2 * dilation, TILE * dilation
        self._panels: Tensor | None = None
        self._input_panels: Tensor | None = None

    def add_to(self, out: Tensor, h: Tensor, first: int, scratch: Scratch) -> None:
        """See :meth:`DirectConvolution.add_to`."""
        y = torch.bmm(self._transformed(h, first, len(out), scratch), self.weight.transpose(1, 2))
        sums = _sums(OUTPUTS, y.view(PLANES, -1, self.dilation, out.shape[1]))
        out.view(-1, TILE, self.dilation, out.shape[1]).add_(sums.transpose(0, 1))

    def add_gate(
        self, pre: Tensor, h: Tensor, first: int, bias: Tensor, out: Tensor, scratch: Scratch, keep: bool = True
    ) -> None:
        """See :meth:`DirectConvolution.add_gate`."""
        if not takes_floats(pre, h):
            super().add_gate(pre, h, first, bias, out, scratch, keep)
            return
        if self._panels is None:
            shape = gate_panels_shape(*self.weight.shape[1:], h.dtype)
            self._panels = gate_panels(self.weight, scratch.take(f"gate_panels{self.dilation}", shape, h))
        convolve(self._panels, h[first:], len(pre) // self.tile, self.dilation, pre, bias, out, scratch, keep)

    def backward(
        self, grad: Tensor, h: Tensor, first: int, grad_h: Tensor, grad_weight: Tensor, scratch: Scratch
    ) -> None:
        """See :meth:`DirectConvolution.backward`."""
        dy = self._transformed_gradient(grad, scratch)
        x = self._transformed(h, first, len(grad), scratch)
        grad_weight.baddbmm_(dy.transpose(1, 2), x, beta=min(first, 1))
        if takes_floats(dy, grad_h):
            self._add_input_gradients(dy, grad_h[first:], scratch)
            return
        d = torch.bmm(dy, self.weight)
        for rows, own in zip(self._inputs(grad_h, first, len(grad)), _sums(zip(*INPUTS, strict=True), d), strict=True):
            rows.add_(own.view(rows.shape))

    def _add_input_gradients(self, dy: Tensor, grad_h: Tensor, scratch: Scratch) -> None:
        depth, width = self.weight.shape[1:]
        if self._input_panels is None:
            room = scratch.take(f"input_panels{self.dilation}", panels_shape(depth, width, dy.dtype, PLANES), dy)
            self._input_panels = panels(self.weight, room)
        room = _room(self._input_panels, 0, scratch)
        call("winograd_input_gradients", (dy, self._input_panels, grad_h, room), *self._sizes(dy), width)

    def _inputs(self, h: Tensor, first: int, count: int) -> list[Tensor]:
        """Return the inputs of each tile, shape (tiles, dilation, in) each, views."""
        step, width = self.dilation, h.shape[1]
        shape, strides = (count // self.tile, step, width), (self.tile * width, width, 1)
        start = h.storage_offset()
        return [h.as_strided(shape, strides, start + (first + j * step) * width) for j in range(PLANES)]

    def _transformed(self, h: Tensor, first: int, count: int, scratch: Scratch) -> Tensor:
        """Return B' d, shape (PLANES, tiles * dilation, in)."""
        if not takes_floats(h):
            return _sums(INPUTS, torch.stack(self._inputs(h, first, count))).flatten(1, 2)
        x = scratch.take("winograd_x", (PLANES, count // TILE, h.shape[1]), h)
        call("winograd_inputs", (h[first:], x), *self._sizes(x))
        return x

    def _transformed_gradient(self, grad: Tensor, scratch: Scratch) -> Tensor:
        """Return A dy, shape (PLANES, tiles * dilation, out)."""
        if not takes_floats(grad):
            rows = grad.view(-1, TILE, self.dilation, grad.shape[1]).transpose(0, 1)
            return _sums(zip(*OUTPUTS, strict=True), rows).flatten(1, 2)
        y = scratch.take("winograd_y", (PLANES, len(grad) // TILE, grad.shape[1]), grad)
        call("winograd_gradients", (grad, y), *self._sizes(y))
        return y

    def _sizes(self, planes: Tensor) -> tuple[int, int, int]:
        return planes.shape[1] // self.dilation, self.dilation, planes.shape[2]

    @staticmethod
    def taps_gradient(grad_weight: Tensor) -> Tensor:
        """See :meth:`DirectConvolution.taps_gradient`."""
        return _sums(zip(*TAPS, strict=True), grad_weight)


def transformed(taps: Tensor) -> Tensor:
    """Turn three taps (3, out, in) into G g, shape (PLANES, out, in)."""
    return _sums(TAPS, taps)


def transformed_normalised(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write :func:`transformed` of a weight-normalised convolution, compiled.

    Args:
        v: Directions, float32 and contiguous, as all here, shape (n, m, 3).
        g: Norms, shape (n, 1).
        out: Written, shape (PLANES, n, m).
    """
    call("winograd_weights", (v, g, out), *v.shape[:2])


def normalised_gradients(grad: Tensor, v: Tensor, g: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of v from that of :func:`transformed_normalised`'s result; return that of g, (n, 1)."""
    grad_g = torch.empty_like(g)
    call("winograd_weight_gradients", (grad, v, g, out, grad_g), *v.shape[:2])
    return grad_g


def gate_panels_shape(out: int, inner: int, dtype: torch.dtype) -> tuple[int, ...] | None:
    """Return the shape of what :func:`gate_panels` makes; None: no compiled function takes such weights."""
    return panels_shape(inner, out, dtype, PLANES)


def gate_panels(weight: Tensor, room: Tensor) -> Tensor:
    """Put weights in the order in which :func:`convolve` reads them, filters beside their gates.

    Args:
        weight: From :func:`transformed`, float32, shape (PLANES, out, in), contiguous.
        room: Of the precision wanted, shape from :func:`gate_panels_shape`.

    Returns:
        ``room``.
    """
    call(f"gate_panels_{KINDS[room.dtype]}", (weight, room), weight.shape[2], weight.shape[1] // 2)
    return room


def convolve(
    panels: Tensor,
    h: Tensor,
    tiles: int,
    dilation: int,
    pre: Tensor,
    bias: Tensor,
    out: Tensor,
    scratch: Scratch,
    keep: bool = False,
) -> Tensor:
    """Write b - 2 a b, with a and b the sigmoids of the two halves of pre, bias and convolution.

    Args:
        panels: From :func:`gate_panels`.
        h: Input, of the precision of the panels, as all here, shape (tiles * tile + reach or more, in), contiguous.
        tiles: Tiles of six times ``dilation`` rows.
        dilation: Rows from tap to tap.
        pre: What is added to the convolution, shape (rows or more, 2 * width), contiguous.
        bias: Shape (2 * width,).
        out: Written, shape (rows, width), contiguous; at most all rows of the tiles.
        scratch: Buffers.
        keep: Write the sigmoids to ``pre``.

    Returns:
        ``out``.
    """
    sizes = (len(out), tiles, dilation, panels.shape[2], out.shape[1], int(keep))
    room = _room(panels, panels.shape[2], scratch)
    call(f"winograd_convolve_{KINDS[h.dtype]}", (h, panels, pre, bias, out, room), *sizes)
    return out


def _room(panels: Tensor, inner: int, scratch: Scratch) -> Tensor:
    """Return room for the groups of all threads: ``inner`` inputs and a panel's outputs for each row."""
    rows = torch.get_num_threads() * PLANES * call("winograd_group", ())
    return scratch.take("winograd_room", (rows, inner + panels.shape[3]), panels.new_empty(0, dtype=torch.float32))


def _sums(matrix: Iterable[tuple[float, ...]], terms: Tensor) -> Tensor:
    """Multiply the first dimension by a matrix."""
    return torch.tensordot(torch.tensor(list(matrix), dtype=terms.dtype, device=terms.device), terms, 1)
