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

from flowavenet_plugin.kernels.arguments import beginning, dense
from flowavenet_plugin.kernels.compiled import KINDS, call, constant, takes_floats, thread_count
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.products import panels, panels_shape
from flowavenet_plugin.kernels.scratch import Scratch

TILE, PLANES = 6, 8
#: All but infinity, and what their taps are scaled by.
POINTS, SCALES = (0, 1, -1, 2, -2, 1 / 2, -1 / 2), (1, -2 / 9, -2 / 9, 1 / 90, 1 / 90, 32 / 45, 32 / 45)
#: A', G and B'.
OUTPUTS = [(*(point**i for point in POINTS), int(i == TILE - 1)) for i in range(TILE)]
TAPS = [*([scale * point**k for k in range(3)] for point, scale in zip(POINTS, SCALES, strict=True)), [0, 0, 1]]
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

    @classmethod
    def folded(cls, taps: Tensor, dilation: int, dtype: torch.dtype) -> WinogradConvolution:
        """Transform taps (3, out, in), then round them, for gates of a precision; there is no way back."""
        weight = transformed(taps)
        weight = weight.float() if dtype in KINDS else weight
        shape = gate_panels_shape(*weight.shape[1:], dtype) if takes_floats(weight) else None
        if shape is None:
            return cls(weight.to(dtype), dilation)
        made = cls(weight, dilation)
        made._panels, made.weight = gate_panels(weight, weight.new_empty(shape, dtype=dtype)), None
        return made

    def add_to(self, out: Tensor, h: Tensor, first: int, scratch: Scratch) -> None:
        """See :meth:`DirectConvolution.add_to`."""
        y = torch.bmm(self._transformed(h, first, len(out), scratch), self.weight.transpose(1, 2))
        sums = _sums(OUTPUTS, y.view(PLANES, -1, self.dilation, out.shape[1]))
        out.view(-1, TILE, self.dilation, out.shape[1]).add_(sums.transpose(0, 1))

    def add_gate(
        self, pre: Tensor, h: Tensor, first: int, bias: Tensor, out: Tensor, scratch: Scratch, keep: bool = True
    ) -> None:
        """See :meth:`DirectConvolution.add_gate`."""
        if self._panels is None and not takes_floats(pre, h):
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
        (depth, width), rows = self.weight.shape[1:], dy.shape[1]
        shape = panels_shape(depth, width, dy.dtype, PLANES)
        if self._input_panels is None:
            room = scratch.take(f"input_panels{self.dilation}", shape, dy)
            self._input_panels = panels(self.weight, room)
        addresses = (
            dense("gradients", dy, torch.float32, PLANES, rows, depth),
            dense("panels", self._input_panels, torch.float32, *shape),
            beginning("gradients of inputs", grad_h, torch.float32, TILE * rows + self.reach, width),
            _room(self._input_panels, 0, scratch).data_ptr(),
        )
        call("winograd_input_gradients", *addresses, *self._sizes(dy), width)

    def _inputs(self, h: Tensor, first: int, count: int) -> list[Tensor]:
        """Return the inputs of each tile, shape (tiles, dilation, in) each, views."""
        (step, within), tiles = h.stride(), count // self.tile
        shape, strides = (tiles, self.dilation, h.shape[1]), (self.tile * step, step, within)
        starts = (h.storage_offset() + (first + j * self.dilation) * step for j in range(PLANES))
        return [h.as_strided(shape, strides, start) for start in starts]

    def _transformed(self, h: Tensor, first: int, count: int, scratch: Scratch) -> Tensor:
        """Return B' d, shape (PLANES, tiles * dilation, in)."""
        if not takes_floats(h):
            return _sums(INPUTS, torch.stack(self._inputs(h, first, count))).flatten(1, 2)
        x = scratch.take("winograd_x", (PLANES, count // TILE, h.shape[1]), h)
        h_at = beginning("inputs", h[first:], torch.float32, count + self.reach, h.shape[1])
        call("winograd_inputs", h_at, x.data_ptr(), *self._sizes(x))
        return x

    def _transformed_gradient(self, grad: Tensor, scratch: Scratch) -> Tensor:
        """Return A dy, shape (PLANES, tiles * dilation, out)."""
        if not takes_floats(grad):
            rows = grad.reshape(-1, TILE, self.dilation, grad.shape[1]).transpose(0, 1)
            return _sums(zip(*OUTPUTS, strict=True), rows).flatten(1, 2)
        y = scratch.take("winograd_y", (PLANES, len(grad) // TILE, grad.shape[1]), grad)
        call("winograd_gradients", grad.data_ptr(), y.data_ptr(), *self._sizes(y))
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

    Raises:
        ValueError: If a tensor has another type, shape or layout; so do all functions here that write or return
            something compiled.
    """
    (n, m, _), dtype = v.shape, torch.float32
    addresses = dense("v", v, dtype, n, m, 3), dense("g", g, dtype, n, 1), dense("out", out, dtype, PLANES, n, m)
    call("winograd_weights", *addresses, n, m)


def normalised_gradients(grad: Tensor, v: Tensor, g: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of v from that of :func:`transformed_normalised`'s result; return that of g, (n, 1)."""
    (n, m, _), dtype = v.shape, torch.float32
    grad_g = torch.empty(n, 1, dtype=dtype, device="cpu")
    addresses = (
        dense("grad", grad, dtype, PLANES, n, m),
        dense("v", v, dtype, n, m, 3),
        dense("g", g, dtype, n, 1),
        dense("out", out, dtype, n, m, 3),
    )
    call("winograd_weight_gradients", *addresses, grad_g.data_ptr(), n, m)
    return grad_g


def gate_panels_shape(out: int, inner: int, dtype: torch.dtype) -> tuple[int, ...] | None:
    """Return the shape of what :func:`gate_panels` makes; None: no compiled function takes such weights."""
    return panels_shape(inner, out, dtype, PLANES)


def gate_panels(weight: Tensor, room: Tensor) -> Tensor:
    """Put weights in the order in which :func:`convolve` reads them, filters beside their gates; return ``room``.

    ``weight`` is from :func:`transformed`, float32, shape (PLANES, out, in), contiguous; ``room`` of the precision
    wanted, shape from :func:`gate_panels_shape`.
    """
    (_, out, inner), dtype = weight.shape, room.dtype
    shape = gate_panels_shape(out, inner, dtype)
    if shape is None or out % 2:
        raise ValueError(f"no compiled function takes convolutions of {dtype}, {inner} to {out} channels")
    weight_at = dense("weight", weight, torch.float32, PLANES, out, inner)
    call(f"gate_panels_{KINDS[dtype]}", weight_at, dense("room", room, dtype, *shape), inner, out // 2)
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
    """Write b - 2 a b, with a and b the sigmoids of the two halves of pre, bias and convolution, to ``out``; return it.

    Args:
        panels: From :func:`gate_panels`.
        h: Input, of the precision of the panels, as all here, shape (tiles * tile + reach or more, in), contiguous.
        tiles: Tiles of six times ``dilation`` rows.
        dilation: Rows from tap to tap.
        pre: What is added to the convolution, shape (rows or more, 2 * width), contiguous; ``keep``: then the sigmoids.
        bias: Shape (2 * width,).
        out: Shape (rows, width), contiguous; at most all rows of the tiles.
        scratch: Buffers.
        keep: See ``pre``.
    """
    (count, width), inner, dtype = out.shape, panels.shape[2], panels.dtype
    if count > tiles * TILE * dilation:
        raise ValueError(f"{tiles} tiles with dilation {dilation} have fewer than {count} rows")
    addresses = (
        beginning("inputs", h, dtype, tiles * TILE * dilation + 2 * dilation, inner),
        dense("panels", panels, dtype, *(gate_panels_shape(2 * width, inner, dtype) or ())),
        beginning("pre", pre, dtype, count, 2 * width),
        dense("bias", bias, dtype, 2 * width),
        dense("out", out, dtype, count, width),
        _room(panels, inner, scratch).data_ptr(),
    )
    call(f"winograd_convolve_{KINDS[dtype]}", *addresses, count, tiles, dilation, inner, width, keep)
    return out


def _room(panels: Tensor, inner: int, scratch: Scratch) -> Tensor:
    """Return room for the groups of all threads: ``inner`` inputs and a panel's outputs for each row."""
    rows = thread_count() * PLANES * constant("winograd_group")
    return scratch.take("winograd_room", (rows, inner + panels.shape[3]), panels.new_empty(0, dtype=torch.float32))


def _sums(matrix: Iterable[tuple[float, ...]], terms: Tensor) -> Tensor:
    """Multiply the first dimension by a matrix."""
    return torch.tensordot(torch.tensor(list(matrix), dtype=terms.dtype, device=terms.device), terms, 1)
