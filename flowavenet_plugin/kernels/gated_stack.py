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

from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_weights import StackWeights

#: Factor of a layer's residual sum.
RESIDUAL = math.sqrt(0.5)
#: Rows of a piece on a CPU: its hidden states fit the cache.
PIECE = 1024


@dataclass
class Activations:
    """What the backward pass reads: input, hidden states, sigmoids (a, b), negated gates, the two last layers."""

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


def forward(x: Tensor, cond: Tensor, weights: StackWeights, rows: Rows, scratch: Scratch) -> tuple[Tensor, Activations]:
    """Run the stack.

    Args:
        x: Input, shape (rows, in_channels), zero outside of utterances.
        cond: Conditioning, shape (rows, cond_channels).
        weights: Of the stack.
        rows: The layout.
        scratch: Buffers; the activations lie in them.

    Returns:
        Prediction, shape (rows, out_channels), and what :func:`backward` needs.
    """
    size, width, n_layer = x.shape[0], weights.width, len(weights.taps)
    kept = Activations(x)

    def take(name: str, columns: int = width) -> Tensor:
        return scratch.take(name, (size, columns), x)

    h = _product(_unfold(x, weights.front_offsets), weights.front.t(), weights.front_bias, take("hidden0")).relu_()
    skips, last = take("skips"), take("last")
    for i, taps in enumerate(weights.taps):
        rows.clear(h)
        kept.hidden.append(h)
        sigmoids, gate = take(f"sigmoids{i}", 2 * width), take(f"gate{i}")
        following = take(f"hidden{i + 1}") if i + 1 < n_layer else None
        for piece in _pieces(x):
            pre = torch.mm(cond[piece], weights.cond[i].t(), out=sigmoids[piece])
            torch.addcmul(weights.bias[i], pre, weights.cond_scale[i], out=pre)
            for offset, tap in zip(weights.offsets[i], taps, strict=True):
                _add_shifted(pre, h, tap.t(), offset, piece)
            a, b = pre.sigmoid_().chunk(2, dim=1)
            u = torch.addcmul(b, a, b, value=-2, out=gate[piece])
            if i == 0:
                skips[piece] = weights.skip_sum_bias
            skips[piece].addmm_(u, weights.to_skip[i].t(), alpha=-1)
            if following is not None:
                following[piece] = weights.residual_bias[i]
                following[piece].add_(h[piece]).addmm_(u, weights.to_residual[i].t(), beta=RESIDUAL, alpha=-RESIDUAL)
        kept.sigmoids.append(sigmoids)
        kept.gates.append(gate)
        h = following
    kept.skips = skips.relu_()
    kept.last = _product(skips, weights.skip.t(), weights.skip_bias, last).relu_()
    return torch.addmm(weights.end_bias, last, weights.end.t()), kept


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
    width = weights.width
    grads = weights.empty_gradients(scratch)
    size = grad.shape[0]

    def take(name: str, columns: int = width) -> Tensor:
        return scratch.take(name, (size, columns), grad)

    grads.end = grad.t() @ kept.last
    grads.end_bias = grad.sum(dim=0)
    grad_last = _relu_backward(torch.mm(grad, weights.end, out=take("grad_gate")), kept.last)
    grads.skip = grad_last.t() @ kept.skips
    grads.skip_bias = grad_last.sum(dim=0)
    grad_skips = _relu_backward(_product(grad_last, weights.skip, None, take("grad_skips")), kept.skips)
    grads.skip_sum_bias = grad_skips.sum(dim=0)
    grad_h = None
    for i in reversed(range(len(weights.taps))):
        grad_pre = take("grad_pre", 2 * width)
        _gate_backward(i, grad_skips, grad_h, kept, weights, take("grad_gate"), grad_pre)
        grads.to_skip[i] = (grad_skips.t() @ kept.gates[i]).neg_()
        if grad_h is not None:
            grads.to_residual[i] = (grad_h.t() @ kept.gates[i]).mul_(-RESIDUAL)
            grads.residual_bias[i] = grad_h.sum(dim=0).mul_(RESIDUAL)
        torch.mm(grad_pre.t(), cond, out=grads.cond[i])
        grads.bias[i] = grad_pre.sum(dim=0)
        if grad_cond is not None:
            _accumulate(grad_cond, grad_pre, weights.cond_scale[i], weights.cond[i])
        grad_h = _convolution_backward(i, grad_pre, grad_h, kept.hidden[i], weights, grads, take(f"grad_hidden{i % 2}"))
        rows.clear(grad_h)
    grad_h = _relu_backward(grad_h, kept.hidden[0])
    unfolded = _unfold(kept.x, weights.front_offsets)
    grads.front = grad_h.t() @ unfolded
    grads.front_bias = grad_h.sum(dim=0)
    return _fold(grad_h @ weights.front, weights.front_offsets), grads


def _gate_backward(
    i: int,
    grad_skips: Tensor,
    grad_h: Tensor | None,
    kept: Activations,
    weights: StackWeights,
    grad_gate: Tensor,
    grad_pre: Tensor,
) -> None:
    """Write the gradient of the i-th layer's values before the sigmoids to ``grad_pre``."""
    for piece in _pieces(grad_skips):
        grad_u = grad_gate[piece].addmm_(grad_skips[piece], weights.to_skip[i], beta=0, alpha=-1)
        if grad_h is not None:
            grad_u.addmm_(grad_h[piece], weights.to_residual[i], alpha=-RESIDUAL)
        a, b = kept.sigmoids[i][piece].chunk(2, dim=1)
        grad_a, grad_b = grad_pre[piece].chunk(2, dim=1)
        # u = b - 2 a b, so that -2 a b = u - b: all of it from products of grad_u with u, a and b.
        product = torch.mul(grad_u, kept.gates[i][piece])
        torch.addcmul(product, product, b, value=-1, out=grad_b)
        product.addcmul_(grad_u, b, value=-1)
        torch.addcmul(product, product, a, value=-1, out=grad_a)


def _convolution_backward(
    i: int,
    grad_pre: Tensor,
    grad_next: Tensor | None,
    h: Tensor,
    weights: StackWeights,
    grads: StackWeights,
    grad_h: Tensor,
) -> Tensor:
    """Write the gradients of the i-th dilated convolution's input and taps."""
    size = h.shape[0]
    if grad_next is not None:
        torch.mul(grad_next, RESIDUAL, out=grad_h)
    else:
        grad_h.zero_()
    for k, offset in enumerate(weights.offsets[i]):
        for piece in _pieces(h):
            _add_shifted(grad_h[piece], grad_pre, weights.taps[i][k], -offset, piece)
        n = max(size - abs(offset), 0)
        read, written = h.narrow(0, min(max(offset, 0), size), n), grad_pre.narrow(0, min(max(-offset, 0), size), n)
        torch.mm(written.t(), read, out=grads.taps[i][k])
    return grad_h


def _pieces(x: Tensor) -> Iterator[slice]:
    size = x.shape[0]
    step = PIECE if x.device.type == "cpu" else size
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    for piece in _pieces(x):
        if bias is None:
            torch.mm(x[piece], weight, out=out[piece])
        else:
            torch.addmm(bias, x[piece], weight, out=out[piece])
    return out


def _accumulate(out: Tensor, x: Tensor, scale: Tensor, weight: Tensor) -> None:
    """Add (x * scale) @ weight to ``out``, which may be of higher precision."""
    for piece in _pieces(x):
        scaled = x[piece] * scale
        if out.dtype == x.dtype:
            out[piece].addmm_(scaled, weight)
        else:
            out[piece].add_(scaled @ weight)


def _add_shifted(out: Tensor, h: Tensor, weight: Tensor, offset: int, piece: slice) -> None:
    """Add h of ``offset`` rows further on times ``weight`` to ``out``, the rows ``piece`` of all; h ends in zeros."""
    first, last = max(piece.start + offset, 0), min(piece.stop + offset, h.shape[0])
    if first < last:
        out[first - offset - piece.start : last - offset - piece.start].addmm_(h[first:last], weight)


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
