"""Forward pass of the gated dilated convolution stack (arXiv 1811.02155, section 3.2) on rows, for all backends.

The same function as :class:`flowavenet_plugin.flow.wavenet.WaveNet`, as matrix products that accumulate: taps of a
convolution, its conditioning, residual and skip sums add up inside the products, and what remains between them is few
element-wise passes over pieces that stay in the processor's cache. With a = sigmoid(2 f) and b = sigmoid(g), the gate
is tanh(f) sigmoid(g) = 2 a b - b; the factor 2 is part of the weights, and the gate is kept negated: b - 2 a b is one
pass. :mod:`.backends` lists who computes products and gates; :mod:`.gated_stack_backward` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowavenet_plugin.kernels import fused
from flowavenet_plugin.kernels.compiled import takes, takes_floats
from flowavenet_plugin.kernels.rows import Marked, Rows
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_weights import StackWeights

#: Values that a front convolution reads, up to which a library's product is slower than the compiled one.
SMALL_FRONT = 24
#: Values that an end convolution writes, likewise.
SMALL_END = 16
#: Conditioning of the rows from one to before another: the matrices (rows, channels) that the stack reads.
Cond = Callable[[int, int], list[Tensor]]


@dataclass(frozen=True)
class Span:
    """Rows that are wanted.

    Attributes:
        first: The first.
        last: One beyond the last.
        total: Rows that there are: beyond these, all is zero.
        start: Row that the stack's input begins with.
    """

    first: int
    last: int
    total: int
    start: int

    def needed(self, weights: StackWeights) -> list[tuple[int, int]]:
        """Return the rows whose hidden states are needed, from the first layer's input to the last layer's gate."""
        spans = [(self.first, self.last)]
        for conv, left in reversed(list(zip(weights.dilated, weights.shape.lefts, strict=True))):
            start, end = spans[0]
            spans.insert(0, (max(0, start - left), min(self.total, end + conv.reach - left)))
        return spans


@dataclass
class Activations:
    """What the backward pass reads: input, hidden states, sigmoids (a, b), negated gates, the two last layers.

    Input and hidden states have the rows of zeros around them that their convolutions read.
    """

    x: Tensor
    hidden: list[Tensor] = field(default_factory=list)
    sigmoids: list[Tensor] = field(default_factory=list)
    gates: list[Tensor] = field(default_factory=list)
    skips: Tensor | None = None
    last: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """List them; :meth:`of` puts them together again."""
        return [self.x, *self.hidden, *self.sigmoids, *self.gates, self.skips, self.last]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> Activations:
        """Undo :meth:`tensors`."""
        n = (len(tensors) - 3) // 3
        x, *inner, skips, last = tensors
        return cls(x, inner[:n], inner[n : 2 * n], inner[2 * n :], skips, last)


def forward(
    weights: StackWeights,
    x: Tensor,
    cond: Cond,
    span: Span,
    layout: Rows | Marked,
    scratch: Scratch,
    keep: bool = False,
) -> tuple[Tensor, Activations | None]:
    """Run the stack.

    Args:
        weights: Of the stack.
        x: Input of all rows that matter, zero outside of utterances, contiguous, shape (rows, in_channels).
        cond: Conditioning.
        span: Rows that are wanted.
        layout: What is outside of utterances.
        scratch: Buffers; the activations lie in them.
        keep: Keep activations; all rows are to be wanted then.

    Returns:
        Prediction, shape (rows wanted, out_channels), and what the backward pass needs, if kept.
    """
    spans, width, like = span.needed(weights), weights.width, weights.skip_bias
    count = span.last - span.first
    kept = Activations(x) if keep else None
    out = x.new_empty(count, len(weights.end), dtype=weights.end.dtype)
    skips = scratch.take("skips", (count, width), like)
    last = scratch.take("last", (count, width), like) if keep else None
    h, core = _hidden(0, spans, weights, like, scratch, keep)
    for piece in weights.pieces(len(core)):
        _front(x[piece.start + spans[0][0] - weights.shape.front_left - span.start :], weights, core[piece])
    layout.clear(core, spans[0][0])
    for i, (start, end) in enumerate(spans[1:]):
        is_last, shift = i + 1 == len(weights.dilated), span.first - start
        following = None if is_last else _hidden(i + 1, spans, weights, like, scratch, keep)
        pieces, tile = weights.pieces(end - start), weights.dilated[i].tile
        most = end - start if keep else max((piece.stop - piece.start for piece in pieces), default=0)
        sigmoids = scratch.take(f"sigmoids{i if keep else ''}", (padded(most, tile), 2 * width), like)
        gates = scratch.take(f"gate{i if keep else ''}", (most, width), like)
        for rows in pieces:
            place, size = rows.start if keep else 0, rows.stop - rows.start
            pre, gate = sigmoids[place : place + padded(size, tile)], gates[place : place + size]
            pre[size:].zero_()
            weights.condition(i, cond(start + rows.start, start + rows.stop), pre[:size])
            gate = weights.backend.gate(weights, i, pre, gate, h, rows.start, scratch, keep)
            first, stop = max(rows.start, shift), min(rows.stop, span.last - start)  # of those, the wanted
            into = slice(first - shift, stop - shift)
            weights.backend.skip(weights, i, gate[first - rows.start : stop - rows.start], skips[into])
            if is_last:
                state = scratch.take("last", skips[into].shape, like) if last is None else last[into]
                weights.times("skip").multiply(skips[into], state, weights.skip_bias, relu=True)
                _end(state, weights, out[into])
            else:
                before = h[weights.shape.lefts[i] :][rows]
                inside = layout.inside(start + rows.start, start + rows.stop) if weights.backend.clears else None
                weights.backend.residual(weights, i, gate, before, following[1][rows], inside)
        if keep:
            kept.hidden.append(h)
            kept.sigmoids.append(sigmoids[: end - start])
            kept.gates.append(gates)
        if not is_last:
            h, core = following
            if not weights.backend.clears:
                layout.clear(core, start)
    if keep:
        kept.skips, kept.last = skips, last
    return out, kept


def windows(x: Tensor, weights: StackWeights, count: int) -> Tensor:
    """Return what the front reads for each of ``count`` rows, a view of shape (count, taps * in_channels)."""
    return x.as_strided((count, len(weights.front)), (x.shape[1], 1), x.storage_offset())


def _front(x: Tensor, weights: StackWeights, out: Tensor) -> None:
    """Write the first hidden states; ``x`` begins where the first row's window does."""
    weight, bias = weights.front, weights.front_bias
    if len(weight) <= SMALL_FRONT and weight.dtype == torch.float32 and takes(out):
        fused.front(x.flatten(), x.shape[1], weight, bias, out)
    elif weight.dtype == out.dtype:
        torch.addmm(bias, windows(x, weights, len(out)), weight, out=out).relu_()
    else:
        out.copy_(torch.addmm(bias, windows(x, weights, len(out)), weight).relu_())


def _end(state: Tensor, weights: StackWeights, out: Tensor) -> None:
    """Write the prediction."""
    if len(weights.end) <= SMALL_END and takes_floats(weights.end) and takes(state):
        fused.end(state, weights.end, weights.end_bias, out)
    else:
        torch.addmm(weights.end_bias, state.to(weights.end.dtype), weights.end.t(), out=out)


def padded(count: int, tile: int) -> int:
    """Return the rows of whole tiles that hold so many."""
    return -(-count // tile) * tile


def bordered(
    name: str, layer: int, before: int, size: int, outputs: int, weights: StackWeights, like: Tensor, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """Return room for what a layer reads, of the type of ``like``, and of it a part between rows of zeros.

    The part has ``size`` rows, with ``before`` of zeros before it; the layer's convolution makes ``outputs`` rows of
    all.
    """
    conv = weights.dilated[layer]
    whole = scratch.take(name, (padded(outputs, conv.tile) + conv.reach, weights.width), like)
    whole[:before].zero_()
    whole[before + size :].zero_()
    return whole, whole[before : before + size]


def _hidden(
    layer: int, spans: list[tuple[int, int]], weights: StackWeights, like: Tensor, scratch: Scratch, keep: bool
) -> tuple[Tensor, Tensor]:
    """Return room for a layer's input, see :func:`bordered`."""
    (start, end), (first, last) = spans[layer : layer + 2]
    before = start - (first - weights.shape.lefts[layer])
    name = f"hidden{layer if keep else layer % 2}"
    return bordered(name, layer, before, end - start, last - first, weights, like, scratch)
