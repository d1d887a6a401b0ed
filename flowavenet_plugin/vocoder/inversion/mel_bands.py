"""The mel bands of features: their filters, and the way back from bands to bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowavenet_plugin.vocoder.inversion.settings import FeatureSettings

#: How fast a spectrum falls outside of the range of the mel bands, which don't tell, in dB per octave: below the lowest
#: band (no voice is there) and above the highest one, where recordings of speech fall about as much.
TILT_BELOW, TILT_ABOVE = 24.0, 36.0


def mel_filters(settings: FeatureSettings) -> Tensor:
    """Return the filters that librosa makes for these settings, float64, shape (n_mels, n_fft // 2 + 1)."""
    edges = _edges(settings)
    return _triangles(settings) * (2 / (edges[2:] - edges[:-2]))[:, None]


def exponents(settings: FeatureSettings) -> Tensor:
    """Return how much of a band's logarithmic error each bin makes good, float64, shape (n_mels, n_fft // 2 + 1).

    These are the filters with peaks of 1, so that no bin changes by more than its bands ask for. Below the peak of the
    lowest band all bins follow that band; above the highest one the bins keep what they have. A band without any bin
    asks for nothing.
    """
    weights = _triangles(settings)
    weights[0, _bins(settings) < _edges(settings)[1]] = 1
    return weights * (mel_filters(settings).sum(dim=1, keepdim=True) > 0)


def interpolation(settings: FeatureSettings) -> Tensor:
    """Return the matrix from values of bands to those of bins, float64, shape (n_mels, n_fft // 2 + 1).

    Linear between the bands' middles; beyond the first and the last the value of that band.
    """
    middles = _edges(settings)[1:-1]
    places = torch.searchsorted(middles, _bins(settings)).clamp(1, max(len(middles) - 1, 1))
    weights = torch.zeros(settings.n_mels, settings.n_fft // 2 + 1, dtype=torch.float64)
    if len(middles) == 1:
        return weights + 1
    share = ((_bins(settings) - middles[places - 1]) / (middles[places] - middles[places - 1])).clamp(0, 1)
    columns = torch.arange(weights.shape[1])
    weights[places - 1, columns] = 1 - share
    weights[places, columns] = share
    return weights


def tilt(settings: FeatureSettings) -> Tensor:
    """Return what is added to the natural logarithm of amplitude outside of the bands, shape (n_fft // 2 + 1,)."""
    hertz = _bins(settings).clamp(min=settings.fs / settings.n_fft / 2)
    below = (hertz / settings.fmin).log2().clamp(max=0) * TILT_BELOW if settings.fmin > 0 else torch.zeros_like(hertz)
    above = (hertz / settings.fmax).log2().clamp(min=0) * TILT_ABOVE
    return (below - above) * math.log(10) / 20


def _bins(settings: FeatureSettings) -> Tensor:
    return torch.arange(settings.n_fft // 2 + 1, dtype=torch.float64) * settings.fs / settings.n_fft


def _triangles(settings: FeatureSettings) -> Tensor:
    """Return the filters with peaks of 1, float64, shape (n_mels, bins)."""
    edges, bins = _edges(settings), _bins(settings)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(up, down).clamp(min=0)


def _edges(settings: FeatureSettings) -> Tensor:
    """Return where the bands begin, peak and end in Hz: band i at i, i + 1 and i + 2; shape (n_mels + 2,)."""
    ends = torch.tensor([settings.fmin, settings.fmax], dtype=torch.float64)
    low, high = (_htk(ends) if settings.htk else _slaney(ends)).tolist()
    mels = torch.linspace(low, high, settings.n_mels + 2, dtype=torch.float64)
    if settings.htk:
        return 700 * (10 ** (mels / 2595) - 1)
    return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * math.log(6.4) / 27))


def _htk(hertz: Tensor) -> Tensor:
    return 2595 * (1 + hertz / 700).log10()


def _slaney(hertz: Tensor) -> Tensor:
    """Slaney's scale: linear to 1000 Hz, then logarithmic."""
    return torch.where(hertz < 1000, hertz * 3 / 200, 15 + (hertz.clamp(min=1) / 1000).log() * 27 / math.log(6.4))
