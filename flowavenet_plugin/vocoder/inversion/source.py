"""The start of mel inversion: pulses at the pitch and noise, with the envelope that the mel tells."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis, Layout

#: Share of the amplitude that pulses have where speech is voiced; up to where in Hz; and how wide the passage is.
SHARE, VOICED_UP_TO, PASSAGE = 0.95, 5000.0, 1000.0


def pulses(hertz: Tensor, fs: int, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Make pulses whose spectrum is flat up to half the sampling rate, between samples too.

    That is the sum of all harmonics, a quotient of two sines (Dirichlet's kernel), without the constant.

    Args:
        hertz: Pitch at each sample in Hz, float64, shape (B, samples).
        fs: Sampling rate in Hz.
        phase: Phase before the first sample, in periods, float64, shape (B, 1).

    Returns:
        Pulses of power 1, shape (B, samples), and the phase at each sample, shape (B, samples).
    """
    periods = phase + (hertz / fs).cumsum(dim=1)
    return pulses_at(periods, hertz, fs), periods


def pulses_at(periods: Tensor, hertz: Tensor, fs: int) -> Tensor:
    """Return the pulses of power 1, shape (B, samples), of a phase at each sample: one wherever it is whole."""
    angle = math.pi * periods.remainder(1)
    count = (fs / 2 / hertz).floor()
    below = angle.sin()
    inside = below.abs() > 1e-6
    kernel = torch.where(inside, torch.sin((2 * count + 1) * angle) / torch.where(inside, below, 1), 2 * count + 1)
    return (kernel - 1) / (2 * count).sqrt()


def at_samples(values: Tensor, hop_length: int) -> Tensor:
    """Interpolate values of frames (B, frames), float64, which lie at samples i * hop_length: (B, samples)."""
    following = torch.cat([values[:, 1:], values[:, -1:]], dim=1)[..., None]
    places = torch.arange(hop_length, device=values.device, dtype=values.dtype) / hop_length
    return torch.lerp(values[..., None], following, places).flatten(1)


def mixed(analysis: FeatureAnalysis, voice: Tensor, noise: Tensor, voiced: Tensor, layout: Layout) -> Tensor:
    """Return the STFT of pulses and noise: of pulses where speech is voiced, and of noise elsewhere and far up.

    Args:
        analysis: Of the features.
        voice: Pulses of power 1, shape (B, samples).
        noise: Noise, shape (B, samples).
        voiced: From 0 to 1, shape (B, frames).
        layout: Of these utterances.
    """
    hertz = torch.arange(analysis.n_fft // 2 + 1, device=voice.device, dtype=voice.dtype) * (
        analysis.fs / analysis.n_fft
    )
    share = SHARE * voiced[..., None] * torch.sigmoid((VOICED_UP_TO - hertz) * (4 / PASSAGE))
    return analysis.spectrum(voice, layout) * share + analysis.spectrum(noise, layout) * (1 - share.square()).sqrt()


def shaped(analysis: FeatureAnalysis, spectrum: Tensor, feats: Tensor, layout: Layout) -> Tensor:
    """Give a flat source the envelope of features, with the phase of a causal filter that rings no longer than it must.

    Such a filter's phase is told by its amplitude alone: its cepstrum is that of the logarithm of the amplitude,
    folded onto times from 0 on. A linear prediction of high order comes to the same; it needs a recursion.

    Args:
        analysis: Of the features.
        spectrum: STFT of a source of power 1, shape (B, frames, bins).
        feats: Un-normalised features, shape (B, frames, n_mels).
        layout: Of these utterances.

    Returns:
        Waveforms, shape (B, frames * hop_length).
    """
    size = analysis.n_fft
    cepstrum = torch.fft.irfft(analysis.envelope(feats), size)
    middle = (size + 1) // 2
    cepstrum[..., 1:middle] *= 2
    cepstrum[..., size // 2 + 1 :] = 0
    response = torch.fft.rfft(cepstrum)
    response = torch.polar(response.real.exp(), response.imag)
    return analysis.waveform(spectrum * response, layout) / analysis.gain
