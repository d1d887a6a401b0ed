"""Forward and backward passes of the gated dilated convolution stack (arXiv 1811.02155, section 3.2) on rows.

The same function as :class:`flowavenet_plugin.flow.wavenet.WaveNet`, as matrix products that accumulate: taps of a
convolution, its conditioning, residual and skip sums add up inside the products, and what remains between them is few
element-wise passes over pieces that stay in the processor's cache. With a = sigmoid(2 f) and b = sigmoid(g), the gate
is tanh(f) sigmoid(g) = 2 a b - b; the factor 2 is part of the weights, and the gate is kept negated: b - 2 a b is one
pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowavenet_plugin.kernels import fused
from flowavenet_plugin.kernels.compiled import takes
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_weights import StackWeights
from flowavenet_plugin.kernels.thin_product import thin_product

#: Factor of a layer's residual sum.
RESIDUAL = math.sqrt(0.5)


@dataclass
class Activations:
    """What the backward pass reads: input, hidden states, sigmoids (a, b), negated gates, the two last layers.

    Hidden states have the rows of zeros around them that their convolutions read.
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
    x: Tensor, cond: Tensor, weights: StackWeights, rows: Rows, scratch: Scratch, keep: bool = True
) -> tuple[Tensor, Activations | None]:
    """Run the stack.

    Args:
        x: Input, shape (rows, in_channels), zero outside of utterances.
        cond: Conditioning, shape (rows, cond_channels).
        weights: Of the stack.
        rows: The layout.
        scratch: Buffers; the activations lie in them.
        keep: Keep activations.

    Returns:
        Prediction, shape (rows, out_channels), and what :func:`backward` needs, if kept.
    """
    size, width = x.shape[0], weights.width
    kept = Activations(x)
    out = x.new_empty(size, weights.end.shape[0])
    skips = scratch.take("skips", (size, width), x)
    last = scratch.take("last", (size, width), x) if keep else None
    h, core = _padded("hidden0", 0, size, weights, x, scratch)
    unfolded = _unfold(x, weights.front_offsets)
    for piece in _pieces(x, weights):
        torch.addmm(weights.front_bias, unfolded[piece], weights.front.t(), out=core[piece]).relu_()
    for i in range(len(weights.dilated)):
        rows.clear(core)
        sigmoids = gates = None
        if keep:
            sigmoids = scratch.take(f"sigmoids{i}", (_room(size, weights), 2 * width), x)
            gates = scratch.take(f"gate{i}", (size, width), x)
            kept.hidden.append(h)
            kept.sigmoids.append(sigmoids[:size])
            kept.gates.append(gates)
        is_last = i + 1 == len(weights.dilated)
        following = None if is_last else _padded(f"hidden{i + 1}", i + 1, size, weights, x, scratch)
        bias = None if is_last else RESIDUAL * weights.residual_bias[i]
        for piece in _pieces(x, weights):
            u = _gate(i, h, cond, piece, weights, sigmoids, gates, scratch)
            skip_bias, before = weights.skip_sum_bias if is_last else None, skips[piece] if i else None
            weights.times("to_skip", i).multiply(u, skips[piece], skip_bias, before, alpha=-1, relu=is_last)
            if is_last:
                state = _part(last, "last", piece.start, len(u), width, x, scratch)
                weights.times("skip").multiply(skips[piece], state, weights.skip_bias, relu=True)
                torch.addmm(weights.end_bias, state, weights.end.t(), out=out[piece])
            else:
                residual = weights.times("to_residual", i)
                residual.multiply(u, following[1][piece], bias, core[piece], alpha=-RESIDUAL, factor=RESIDUAL)
        h, core = following or (h, core)
    kept.skips, kept.last = skips, last
    return out, kept if keep else None


def backward(
    grad: Tensor,
    cond: Tensor,
    grad_cond: Tensor | None,
    kept: Activations,
    weights: StackWeights,
    rows: Rows,
    scratch: Scratch,
) -> tuple[Tensor, StackWeights]:
    """Run the stack backwards.

    Args:
        grad: Gradient of the prediction, shape (rows, out_channels), zero outside of utterances.
        cond: As in :func:`forward`.
        grad_cond: The gradient of the conditioning is added to it; None: not needed.
        kept: From :func:`forward`.
        weights: As in :func:`forward`.
        rows: The layout.
        scratch: Buffers; not those that hold ``kept`` under the names used here.

    Returns:
        Gradient of x, (rows, in_channels), and the gradients of the weights.
    """
    grads = weights.empty_gradients(scratch)
    grads.end = grad.t() @ kept.last
    grads.end_bias = grad.sum(dim=0)
    grad_skips = _skips_backward(grad, kept, weights, grads, scratch)
    core = None
    for i in reversed(range(len(weights.dilated))):
        grad_next, (grad_h, core) = core, _padded(f"grad_hidden{i % 2}", i, len(grad), weights, grad, scratch)
        if grad_next is None:
            core.zero_()
        else:
            torch.mul(grad_next, RESIDUAL, out=core)
        for piece in _pieces(grad, weights):
            grad_pre = _gate_backward(i, piece, grad_skips, grad_next, kept, weights, grads, scratch)
            inner = grad_pre[: _length(piece, len(grad))]
            _add_product(grads.cond[i], inner.t(), cond[piece], piece)
            if grad_cond is not None:
                _add_cond_gradient(grad_cond[piece], inner, weights, i)
            weights.dilated[i].backward(grad_pre, kept.hidden[i], piece.start, grad_h, grads.taps[i], scratch)
        rows.clear(core)
    first = kept.hidden[0][weights.lefts[0] :][: len(grad)]
    grad_front = _relu_backward(core, first)
    grads.front = grad_front.t() @ _unfold(kept.x, weights.front_offsets)
    grads.front_bias = grad_front.sum(dim=0)
    return _fold(grad_front @ weights.front, weights.front_offsets), grads


def _gate(
    i: int,
    h: Tensor,
    cond: Tensor,
    piece: slice,
    weights: StackWeights,
    sigmoids: Tensor | None,
    gates: Tensor | None,
    scratch: Scratch,
) -> Tensor:
    """Write sigmoids and gates of the i-th layer for a piece, if they are kept; return the latter."""
    count, width = _length(piece, len(cond)), weights.width
    pre = _part(sigmoids, "pre", piece.start, _room(count, weights), 2 * width, cond, scratch)
    gate = _part(gates, "gate", piece.start, count, width, cond, scratch)
    inner = pre[:count]
    pre[count:].zero_()
    if weights.cond_scale[i] is None:
        weights.times("cond", i).multiply(cond[piece], inner)
    else:
        torch.mul(thin_product(cond[piece], weights.cond[i]), weights.cond_scale[i], out=inner)
    weights.dilated[i].add_gate(pre, h, piece.start, weights.bias[i], gate, scratch, keep=sigmoids is not None)
    return gate


def _part(
    whole: Tensor | None, name: str, start: int, count: int, width: int, like: Tensor, scratch: Scratch
) -> Tensor:
    """Return rows from ``start`` on of what is kept; None: a buffer for them."""
    return scratch.take(name, (count, width), like) if whole is None else whole[start : start + count]


def _skips_backward(
    grad: Tensor, kept: Activations, weights: StackWeights, grads: StackWeights, scratch: Scratch
) -> Tensor:
    """Return the gradient of the sum of skips, before its relu."""
    grad_skips = scratch.take("grad_skips", kept.skips.shape, grad)
    for piece in _pieces(grad, weights):
        grad_last = scratch.take("grad_gate", kept.last[piece].shape, grad)
        _relu_backward(torch.mm(grad[piece], weights.end, out=grad_last), kept.last[piece])
        _add_product(grads.skip, grad_last.t(), kept.skips[piece], piece)
        grads.skip_bias.add_(grad_last.sum(dim=0))
        weights.times("skip", back=True).multiply(grad_last, grad_skips[piece])
        _relu_backward(grad_skips[piece], kept.skips[piece])
        grads.skip_sum_bias.add_(grad_skips[piece].sum(dim=0))
    return grad_skips


def _gate_backward(
    i: int,
    piece: slice,
    grad_skips: Tensor,
    grad_next: Tensor | None,
    kept: Activations,
    weights: StackWeights,
    grads: StackWeights,
    scratch: Scratch,
) -> Tensor:
    """Return the gradient of the i-th layer's values before the sigmoids, of whole tiles; add those of its weights."""
    u, sigmoids = kept.gates[i][piece], kept.sigmoids[i][piece]
    grad_u = scratch.take("grad_gate", u.shape, u)
    weights.times("to_skip", i, back=True).multiply(grad_skips[piece], grad_u, alpha=-1)
    _add_product(grads.to_skip[i], grad_skips[piece].t(), u, piece, -1)
    if grad_next is not None:
        weights.times("to_residual", i, back=True).multiply(grad_next[piece], grad_u, other=grad_u, alpha=-RESIDUAL)
        _add_product(grads.to_residual[i], grad_next[piece].t(), u, piece, -RESIDUAL)
        grads.residual_bias[i].add_(grad_next[piece].sum(dim=0), alpha=RESIDUAL)
    grad_pre = scratch.take("grad_pre", (_room(len(u), weights), 2 * weights.width), u)
    grad_pre[len(u) :].zero_()
    grads.bias[i].add_(_gate_gradients(grad_u, u, sigmoids, grad_pre[: len(u)], scratch))
    return grad_pre


def _gate_gradients(grad: Tensor, u: Tensor, sigmoids: Tensor, out: Tensor, scratch: Scratch) -> Tensor:
    """Write the gradient before the sigmoids (a, b), from that of u = b - 2 a b; return its sum over the rows."""
    if takes(grad) and takes(sigmoids):
        return fused.gate_gradients(grad, u, sigmoids, out)
    (a, b), (grad_a, grad_b) = sigmoids.chunk(2, dim=1), out.chunk(2, dim=1)
    # -2 a b = u - b, so that all of it comes from products of grad with u, a and b.
    product = torch.mul(grad, u, out=scratch.take("product", u.shape, u))
    torch.addcmul(product, product, b, value=-1, out=grad_b)
    product.addcmul_(grad, b, value=-1)
    torch.addcmul(product, product, a, value=-1, out=grad_a)
    return out.sum(dim=0)


def _room(size: int, weights: StackWeights) -> int:
    return -(-size // weights.tile) * weights.tile


def _length(piece: slice, size: int) -> int:
    return min(piece.stop, size) - piece.start


def _padded(
    name: str, layer: int, size: int, weights: StackWeights, like: Tensor, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """Return a layer's input with rows of zeros around it, where its convolution reads them, and the part between."""
    reach, left = weights.dilated[layer].reach, weights.lefts[layer]
    whole = scratch.take(name, (_room(size, weights) + reach, weights.width), like)
    whole[:left].zero_()
    whole[left + size :].zero_()
    return whole, whole[left : left + size]


def _pieces(x: Tensor, weights: StackWeights) -> Iterator[slice]:
    size = x.shape[0]
    step = weights.piece if x.device.type == "cpu" else size
    return (slice(start, start + step) for start in range(0, size, step))


def _add_product(out: Tensor, x: Tensor, y: Tensor, piece: slice, alpha: float = 1) -> None:
    """Add alpha x @ y to ``out``; the first piece is written to it."""
    out.addmm_(x, y, beta=min(piece.start, 1), alpha=alpha)


def _add_cond_gradient(out: Tensor, grad: Tensor, weights: StackWeights, i: int) -> None:
    """Add the gradient of the conditioning, which may be of higher precision, from that of the i-th layer's product."""
    scale, weight = weights.cond_scale[i], weights.cond[i]
    if scale is not None:
        out.add_(thin_product(grad * scale, weight.t()))
    elif out.dtype == grad.dtype:
        weights.times("cond", i, back=True).multiply(grad, out, other=out)
    else:
        out.add_(grad @ weight)


def _relu_backward(grad: Tensor, value: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(grad, value, 0, grad_input=grad)


def _unfold(x: Tensor, offsets: list[int]) -> Tensor:
    """Put x of all offsets beside each other: (rows, C) to (rows, len(offsets) * C)."""
    out = x.new_zeros(x.shape[0], len(offsets), x.shape[1])
    for k, offset in enumerate(offsets):
        first, last = max(offset, 0), min(x.shape[0] + offset, x.shape[0])
        if first < last:
            out[first - offset : last - offset, k] = x[first:last]
    return out.flatten(1)


def _fold(grad: Tensor, offsets: list[int]) -> Tensor:
    """Sum what :func:`_unfold` put beside each other: its transpose."""
    parts = grad.view(grad.shape[0], len(offsets), -1)
    out = grad.new_zeros(parts.shape[0], parts.shape[2])
    for k, offset in enumerate(offsets):
        first, last = max(offset, 0), min(grad.shape[0] + offset, grad.shape[0])
        if first < last:
            out[first:last] += parts[first - offset : last - offset, k]
    return out
