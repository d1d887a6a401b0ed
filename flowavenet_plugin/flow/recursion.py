"""The linear prediction undone: a recursion over samples, solved block by block, and its backward pass.

What whitens is residual = A x of a lower triangular band A, so that x = A^-1 residual. The gradient of the residual is
A^-T that of x: the same recursion, from the last block to the first. The filters' is minus what A itself hands on, at
x and the residual's gradient; it is computed only where it is asked for. All is float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from flowavenet_plugin.flow.arithmetic import arithmetic
from flowavenet_plugin.flow.prediction_matrices import cholesky, toeplitz

#: Blocks that are solved at once: memory grows with it.
SOLVED_BLOCKS = 512


class Filters(NamedTuple):
    """What whitens N blocks of L samples.

    Attributes:
        weights: Weights of the sample ``order`` before, ..., of the sample itself, shape (..., N, order + 1).
        correlation: Covariance of samples that are 0, ..., order - 1 samples apart, for the first samples of all, which
            have none before them, shape (..., N, order).
    """

    weights: Tensor
    correlation: Tensor


def whiten(x: Tensor, weights: Tensor, factor: Tensor) -> Tensor:
    """Apply the filters, A x.

    Args:
        x: Waveform, shape (B, N * L).
        weights: Of :class:`Filters`, shape (B, N, order + 1).
        factor: Cholesky factor of the first samples' covariance, shape (B, order, order).

    Returns:
        Residual, float64, shape of x.
    """
    order = weights.shape[2] - 1
    residual = _filtered(x, weights)
    start = torch.linalg.solve_triangular(factor, x[:, :order, None].to(factor), upper=False)[:, :, 0]
    return torch.cat([start, residual[:, order:]], dim=1)


def _filtered(x: Tensor, weights: Tensor) -> Tensor:
    """Run filters (B, N, order + 1), float64, over x (B, N * L) with zeros before it: shape of x, float64."""
    order, size = weights.shape[2] - 1, x.shape[1] // weights.shape[1]
    period = -(-(size + order) // 32) * 32  # of small factors; no sum reaches around
    blocks = F.pad(x.double(), (order, 0)).unfold(1, size + order, size)
    spectra = torch.fft.rfft(blocks, period) * torch.fft.rfft(weights, period).conj()
    return torch.fft.irfft(spectra, period)[:, :, :size].reshape(x.shape)


class Recursion(torch.autograd.Function):
    """A^-1 residual, of residual (B, N, L), weights (B, N, order + 1) and the first block's correlation (B, order)."""

    @staticmethod
    def forward(ctx: FunctionCtx, residual: Tensor, weights: Tensor, correlation: Tensor) -> Tensor:
        """Solve; see :func:`solve`."""
        x, _ = solve(residual, Filters(weights, correlation[:, None]), None)
        ctx.save_for_backward(x, weights, correlation)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of :meth:`forward`'s arguments; of filters if asked for."""
        x, weights, correlation = ctx.saved_tensors
        with arithmetic(x.device):
            grad_residual = solve_transposed(
                grad.to(weights).unflatten(1, (weights.shape[1], -1)), weights, correlation
            )
            grads = None, None
            if any(ctx.needs_input_grad[1:]):
                with torch.enable_grad():
                    own = weights.detach().requires_grad_(), correlation.detach().requires_grad_()
                    made = whiten(x, own[0], cholesky(own[1]))
                grads = torch.autograd.grad(made, own, -grad_residual.flatten(1).to(made))
            return grad_residual.to(grad.dtype), *grads


def solve(residual: Tensor, filters: Filters, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Undo the filters block by block.

    Args:
        residual: Shape (B, N, L).
        filters: The same blocks', each part with (B, N) in front.
        past: Samples before, shape (B, order); None: there are none.

    Returns:
        Waveform, shape (B, N * L), and its last ``order`` samples.
    """
    pieces, order = [], filters.weights.shape[2] - 1
    if past is None:
        first, factor = _first_block(filters.weights[:, 0], filters.correlation[:, 0], residual.shape[2])
        blocks = residual[:, 0].to(factor)
        right = torch.cat([factor @ blocks[:, :order, None], blocks[:, order:, None]], dim=1)
        pieces.append(torch.linalg.solve_triangular(first, right, upper=False)[:, :, 0])
        past = pieces[0][:, -order:]
    for part in _parts(residual.shape[1], first=len(pieces)):
        response, carry = _responses(filters.weights[:, part], residual.shape[2])
        own = (response @ residual[:, part].to(response)[..., None])[..., 0]
        for block in range(own.shape[1]):
            carried = response[:, block, :, :order] @ (carry[:, block] @ past[:, :, None])
            wav = own[:, block] - carried[:, :, 0]
            past = wav[:, -order:]
            pieces.append(wav)
    return torch.cat(pieces, dim=1).to(residual), past


def solve_transposed(grad: Tensor, weights: Tensor, correlation: Tensor) -> Tensor:
    """Return A^-T grad, from the last block to the first.

    Args:
        grad: Gradient of the waveform, float64, shape (B, N, L).
        weights: Of :class:`Filters`, shape (B, N, order + 1).
        correlation: Of the first block, shape (B, order).

    Returns:
        Gradient of the residual, shape of ``grad``.
    """
    order, out = weights.shape[2] - 1, torch.empty_like(grad)
    later = grad.new_zeros(grad.shape[0], order, 1)  # what the blocks after hand back to the last samples of a block
    for part in reversed(list(_parts(grad.shape[1], first=1))):
        response, carry = (matrices.mT for matrices in _responses(weights[:, part], grad.shape[2]))
        own = (response @ grad[:, part, :, None])[..., 0]
        for block in reversed(range(own.shape[1])):
            found = own[:, block, :, None] + response[:, block, :, -order:] @ later
            out[:, part.start + block] = found[:, :, 0]
            later = -carry[:, block] @ found[:, :order]
    first, factor = _first_block(weights[:, 0], correlation, grad.shape[2])
    last = torch.cat([grad[:, 0, :-order], grad[:, 0, -order:] + later[:, :, 0]], dim=1)
    found = torch.linalg.solve_triangular(first.mT, last[:, :, None], upper=True)
    out[:, 0] = torch.cat([factor.mT @ found[:, :order], found[:, order:]], dim=1)[:, :, 0]
    return out


def _parts(count: int, first: int) -> Iterator[slice]:
    """Cut the blocks from ``first`` on into as many as are solved at once."""
    starts = range(first, count, SOLVED_BLOCKS)
    return (slice(start, min(start + SOLVED_BLOCKS, count)) for start in starts)


def _responses(weights: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return what a block answers to its residual, and what the past adds to the residual of its first samples.

    Args:
        weights: Shape (B, N, order + 1).
        size: Samples of a block, L.

    Returns:
        Matrices, shape (B, N, L, L) and (B, N, order, order).
    """
    by_lag, order = weights.flip(-1), weights.shape[2] - 1
    padded = F.pad(by_lag, (0, size))  # 0 beyond the order
    impulse = torch.eye(size, 1, dtype=by_lag.dtype, device=by_lag.device).expand(*by_lag.shape[:2], -1, -1)
    answer = torch.linalg.solve_triangular(toeplitz(padded, size), impulse, upper=False)[..., 0]
    rows, columns = torch.arange(order, device=by_lag.device)[:, None], torch.arange(order, device=by_lag.device)
    return toeplitz(answer, size), padded[..., rows + order - columns]


def _first_block(weights: Tensor, correlation: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the matrix of the first block, whose first rows pass on, and the factor of the first samples' covariance.

    Where nothing was before, the first samples are correlated as the spectrum says.
    """
    order = correlation.shape[1]
    matrix = toeplitz(F.pad(weights.flip(-1), (0, size)), size)
    matrix[:, :order] = torch.eye(order, size, dtype=matrix.dtype, device=matrix.device)
    return matrix, cholesky(correlation)
