"""The inverse of the linear prediction in operators that formats of exported models hold.

The same function as :meth:`flowavenet_plugin.flow.prediction.LinearPrediction.inverse` of one utterance: the Fourier
transform is a product with cosines; triangular systems are solved row by row; the first samples, whose Cholesky factor
is that of a stationary process, come from the predictors of growing order that Levinson's recursion passes through.
The recursion over blocks is left to the format's own loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowavenet_plugin.flow.prediction import RIDGE, LinearPrediction
from flowavenet_plugin.flow.prediction_matrices import BINS, lengthened

#: Solves all blocks but the first: residuals and answers (N, block), weights by lag (N, 2 * order + 1), past (order,)
#: to (N, block); :func:`next_block` is its step.
Loop = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def next_block(residual: Tensor, answer: Tensor, by_lag: Tensor, past: Tensor) -> Tensor:
    """Solve one block.

    Args:
        residual: Shape (block,).
        answer: What the block answers to a single 1, shape (block,).
        by_lag: Weights of the sample itself, of the one before, ..., then ``order`` zeros, shape (2 * order + 1,).
        past: Samples before, shape (order,).

    Returns:
        Samples, shape (block,).
    """
    size, order = answer.shape[0], past.shape[0]
    rows, columns = torch.arange(order)[:, None], torch.arange(order)[None]
    carry = by_lag[(rows + order - columns).flatten()].view(order, order)
    places = torch.arange(size)
    lags = places[:, None] - places[None]
    response = answer[lags.clamp(min=0).flatten()].view(size, size) * (lags >= 0).to(answer.dtype)
    carried = torch.cat([carry @ past, torch.zeros(size - order, dtype=past.dtype)])
    return response @ (residual - carried)


def inverse(prediction: LinearPrediction, residual: Tensor, feats: Tensor, cond: Tensor, loop: Loop) -> Tensor:
    """Undo the prediction.

    Args:
        prediction: What to undo.
        residual: Shape (frames * hop_length,).
        feats: Features as they are, shape (frames, n_mels).
        cond: Features standardised, same shape.
        loop: Runs :func:`next_block` over the blocks.

    Returns:
        Waveform, shape of the residual.
    """
    order, size = prediction.order, prediction.block
    places = torch.arange(feats.shape[0])
    before, after = (places - 1).clamp(min=0), torch.minimum(places + 1, places[-1:])
    context = torch.cat([cond.index_select(0, before), cond, cond.index_select(0, after)], dim=1)
    correlation = prediction.power(feats, feats.index_select(0, after), context) @ _cosines(order)
    correlation = torch.cat([correlation[:, :1] * (1 + RIDGE), correlation[:, 1:]], dim=1)
    blocks = residual.to(correlation).view(-1, size)
    taps, error = correlation[:, :0], correlation[:, :1]
    start = blocks[0, :0]
    for known in range(order):
        # The first samples: each from all before it.
        new = (taps[0] * start.flip(0)).sum() + error[0].sqrt() * blocks[0, known : known + 1]
        start = torch.cat([start, new])
        taps, error = lengthened(taps, error, correlation, known)
    gain = 1 / error.sqrt()
    answer = error.sqrt()
    for known in range(1, size):
        reach = min(known, order)
        said = (taps[:, :reach] * answer.flip(1)[:, :reach]).sum(1, True)
        answer = torch.cat([answer, said], dim=1)
    by_lag = torch.cat([gain, -taps * gain, torch.zeros_like(taps)], dim=1)
    wav = start
    for known in range(order, size):
        new = (taps[0] * wav[known - order :].flip(0)).sum() + error[0].sqrt() * blocks[0, known : known + 1]
        wav = torch.cat([wav, new])
    rest = loop(blocks[1:], answer[1:], by_lag[1:], wav[size - order :])
    return torch.cat([wav, rest.reshape(-1)]).to(residual)


def _cosines(order: int) -> Tensor:
    """Return the inverse Fourier transform of real even spectra as a matrix, (BINS, order + 1), float64."""
    period = 2 * (BINS - 1)
    angles = torch.arange(BINS)[:, None] * torch.arange(order + 1) % period
    matrix = torch.cos(2 * math.pi / period * angles.double()) * 2 / period
    matrix[[0, -1]] /= 2
    return matrix


@torch.jit.script
def scripted_loop(residual: Tensor, answers: Tensor, by_lag: Tensor, past: Tensor) -> Tensor:
    """Be the :data:`Loop` of ONNX, which turns TorchScript's loops into its own."""
    order = past.shape[0]
    wavs = [residual[:0].reshape(-1)]
    for i in range(residual.shape[0]):
        wav = next_block(residual[i], answers[i], by_lag[i], past)
        past = wav[wav.shape[0] - order :]
        wavs.append(wav)
    return torch.cat(wavs)


def scanning_loop(residual: Tensor, answers: Tensor, by_lag: Tensor, past: Tensor) -> Tensor:
    """Be the :data:`Loop` of torch.export, which keeps a scan."""
    from torch._higher_order_ops.scan import scan  # there is no public name for it yet

    order = past.shape[0]

    def step(carried: Tensor, block: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        wav = next_block(*block, carried)
        return wav[wav.shape[0] - order :].clone(), wav

    return scan(step, past, (residual, answers, by_lag))[1]
