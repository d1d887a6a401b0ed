"""Matrices of the linear prediction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Bins of the power spectrum, 0 to half the sampling rate.
BINS = 257


def interpolation(fs: int, n_mels: int, mel_range: tuple[float, float]) -> Tensor:
    """Return the matrix from log10 mel amplitude (n_mels) to the natural log of power (BINS), shape (n_mels, BINS)."""
    low, high = (_slaney(torch.tensor(float(edge), dtype=torch.float32)) for edge in mel_range)
    bins = _slaney(torch.linspace(0, fs / 2, BINS, dtype=torch.float32))
    places = ((bins - low) / (high - low) * (n_mels + 1) - 1).clamp(0, n_mels - 1)
    distance = (places[None] - torch.arange(n_mels)[:, None]).abs()
    return 2 * math.log(10) * (1 - distance).clamp(min=0)


def _slaney(hertz: Tensor) -> Tensor:
    """Slaney's mel scale: linear to 1000 Hz, then logarithmic."""
    return torch.where(hertz < 1000, hertz * 3 / 200, 15 + (hertz.clamp(min=1) / 1000).log() * 27 / math.log(6.4))


def cholesky(correlation: Tensor) -> Tensor:
    """Factorise the covariance of samples whose correlation is (B, n), shape (B, n, n); NaN: it has no such factor."""
    places = torch.arange(correlation.shape[1], device=correlation.device)
    # Without torch's own check, which would wait for the GPU: training skips an update that isn't finite.
    factor, failed = torch.linalg.cholesky_ex(correlation[:, (places[:, None] - places).abs()])
    return factor.masked_fill((failed != 0)[:, None, None], math.nan)


def lengthened(taps: Tensor, error: Tensor, correlation: Tensor, known: int) -> tuple[Tensor, Tensor]:
    """Let predictors look back one sample more, by Levinson's recursion.

    Args:
        taps: Weights of the sample before, the one before that, ..., shape (N, known).
        error: Power of what they miss, shape (N, 1).
        correlation: Of samples that are 0, 1, ... samples apart, shape (N, known + 2 or more).
        known: Samples that they look back.

    Returns:
        New taps, shape (N, known + 1), and error.
    """
    missed = correlation[:, known + 1 : known + 2] - (taps * correlation[:, 1 : known + 1].flip(1)).sum(1, True)
    reflection = missed / error
    taps = torch.cat([taps - reflection * taps.flip(1), reflection], dim=1)
    return taps, error * (1 - reflection * reflection)


def toeplitz(column: Tensor, size: int) -> Tensor:
    """Return lower triangular matrices whose first columns begin like (..., n), shape (..., size, size)."""
    places = torch.arange(size, device=column.device)
    lags = places[:, None] - places
    return column[..., lags.clamp(min=0)] * (lags >= 0)
