"""Backward pass of :mod:`.gated_stack`."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels import fused
from flowavenet_plugin.kernels.backends import RESIDUAL
from flowavenet_plugin.kernels.compiled import takes
from flowavenet_plugin.kernels.gated_stack import Activations, bordered, padded, windows
from flowavenet_plugin.kernels.products import thin_product
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_gradients import StackGradients
from flowavenet_plugin.kernels.stack_shape import FRONT_KERNEL_SIZE
from flowavenet_plugin.kernels.stack_weights import StackWeights


def backward(
    grad: Tensor,
    cond: Tensor,
    grad_cond: Tensor | None,
    kept: Activations,
    weights: StackWeights,
    rows: Rows,
    scratch: Scratch,
) -> tuple[Tensor, StackGradients]:
    """Run the stack backwards.

    Args:
        grad: Gradient of the prediction, shape (rows, out_channels), zero outside of utterances.
        cond: Conditioning, in one part, shape (rows, cond_channels).
        grad_cond: The gradient of the conditioning is added to it; None: not needed.
        kept: From :func:`~.gated_stack.forward`, as ``weights`` and ``rows`` were given there.
        weights: See ``kept``.
        rows: See ``kept``.
        scratch: Buffers; not those that hold ``kept`` under the names used here.

    Returns:
        Gradient of x, (rows, in_channels), and the gradients of the weights.
    """
    grads = StackGradients.empty(weights, scratch)
    grads.end = grad.t() @ kept.last
    grads.end_bias = grad.sum(dim=0)
    grad_skips = _skips_backward(grad, kept, weights, grads, scratch)
    core, conds = None, grads.cond.chunk(len(weights.dilated))
    for i in reversed(range(len(weights.dilated))):
        room = f"grad_hidden{i % 2}", i, weights.shape.lefts[i], len(grad), len(grad)
        grad_next, (grad_h, core) = core, bordered(*room, weights, grad, scratch)
        if grad_next is None:
            core.zero_()
        else:
            torch.mul(grad_next, RESIDUAL, out=core)
        for piece in weights.pieces(len(grad)):
            grad_pre = _gate_backward(i, piece, grad_skips, grad_next, kept, weights, grads, scratch)
            inner = grad_pre[: piece.stop - piece.start]
            _add_product(conds[i], inner.t(), cond[piece], piece)
            if grad_cond is not None:
                _add_cond_gradient(grad_cond[piece], inner, weights, i)
            weights.dilated[i].backward(grad_pre, kept.hidden[i], piece.start, grad_h, grads.taps[i], scratch)
        rows.clear(core)
    first = kept.hidden[0][weights.shape.lefts[0] :][: len(grad)]
    grad_front = _relu_backward(core, first)
    grads.front = windows(kept.x, weights, len(grad)).t() @ grad_front
    grads.front_bias = grad_front.sum(dim=0)
    return _fold(grad_front @ weights.front.t(), weights.shape.front_left), grads


def _skips_backward(
    grad: Tensor, kept: Activations, weights: StackWeights, grads: StackGradients, scratch: Scratch
) -> Tensor:
    """Return the gradient of the sum of skips, before its relu."""
    grad_skips = scratch.take("grad_skips", kept.skips.shape, grad)
    for piece in weights.pieces(len(grad)):
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
    grads: StackGradients,
    scratch: Scratch,
) -> Tensor:
    """Return the gradient of the i-th layer's values before the sigmoids, of whole tiles; add those of its weights."""
    u, sigmoids = kept.gates[i][piece], kept.sigmoids[i][piece]
    grad_u = scratch.take("grad_gate", u.shape, u)
    weights.times("to_skip", i, back=True).multiply(grad_skips[piece], grad_u, alpha=-1)
    _add_product(grads.outs[i][-weights.width :], grad_skips[piece].t(), u, piece, -1)
    if grad_next is not None:
        weights.times("to_residual", i, back=True).multiply(grad_next[piece], grad_u, other=grad_u, alpha=-RESIDUAL)
        _add_product(grads.outs[i][: weights.width], grad_next[piece].t(), u, piece, -RESIDUAL)
        grads.residual_bias[i].add_(grad_next[piece].sum(dim=0), alpha=RESIDUAL)
    room = padded(len(u), weights.dilated[i].tile)
    grad_pre = scratch.take("grad_pre", (room, 2 * weights.width), u)
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


def _add_product(out: Tensor, x: Tensor, y: Tensor, piece: slice, alpha: float = 1) -> None:
    """Add alpha x @ y to ``out``; the first piece is written to it."""
    out.addmm_(x, y, beta=min(piece.start, 1), alpha=alpha)


def _add_cond_gradient(out: Tensor, grad: Tensor, weights: StackWeights, i: int) -> None:
    """Add the gradient of the conditioning, which may be of higher precision, from that of the i-th layer's product."""
    scale, weight = weights.cond_scale[i], weights.matrices["cond", i]
    if scale is not None:
        out.add_(thin_product(grad * scale, weight.t()))
    elif out.dtype == grad.dtype:
        weights.times("cond", i, back=True).multiply(grad, out, other=out)
    else:
        out.add_(grad @ weight)


def _relu_backward(grad: Tensor, value: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(grad, value, 0, grad_input=grad)


def _fold(grad: Tensor, left: int) -> Tensor:
    """Sum what :func:`~.gated_stack.windows` put beside each other: its transpose; ``left`` rows before are read."""
    parts = grad.view(grad.shape[0], FRONT_KERNEL_SIZE, -1)
    out = grad.new_zeros(parts.shape[0], parts.shape[2])
    for k in range(FRONT_KERNEL_SIZE):
        offset = k - left
        first, last = max(offset, 0), min(grad.shape[0] + offset, grad.shape[0])
        if first < last:
            out[first:last] += parts[first - offset : last - offset, k]
    return out
