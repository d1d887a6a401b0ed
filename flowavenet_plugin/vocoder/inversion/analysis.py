"""Between waveforms, spectra and mel-spectrograms, for the settings of some features."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowavenet_plugin.vocoder.inversion.mel_bands import exponents, interpolation, mel_filters, tilt
from flowavenet_plugin.vocoder.inversion.settings import FeatureSettings

#: Least sum of squared windows over a sample that it is divided by, as a share of the largest.
LEAST_COVER = 1e-3


class Layout(NamedTuple):
    """Where the frames of some utterances lie, which are padded to one length.

    Attributes:
        index: Samples that the frames are cut from, reflected at the ends of each utterance, shape (B, padded).
        cover: One over the sum of the squared windows over each sample, 0 beyond an end, shape (B, samples).
        inside: Which frames are an utterance's, shape (B, frames, 1); None: all.
    """

    index: Tensor
    cover: Tensor
    inside: Tensor | None


class FeatureAnalysis(nn.Module):
    """STFT, mel and back; frame i is centred at sample i * hop_length, and n frames have n * hop_length samples.

    Nothing of it is kept in a state dict.
    """

    def __init__(self, settings: FeatureSettings, divisor: int = 1) -> None:
        """Make windows and filters.

        Args:
            settings: Of the features.
            divisor: The waveforms have the features' sampling rate divided by this, and only the bands below half of
                it are looked at. It has to divide all sizes.
        """
        super().__init__()
        self.settings = settings
        self.n_fft, self.hop_length = settings.n_fft // divisor, settings.hop_length // divisor
        self.fs, self._divisor = settings.fs / divisor, divisor
        bins = self.n_fft // 2 + 1
        filters = mel_filters(settings)
        #: Bands that are looked at.
        self.bands = settings.n_mels if divisor == 1 else max(1, int((filters[:, bins - 1 :].sum(dim=1) == 0).sum()))
        length = settings.win_length // divisor
        shape = torch.ones if settings.window is None else getattr(torch, f"{settings.window}_window")
        window = shape(length, dtype=torch.float64)
        left = (self.n_fft - length) // 2
        window = nn.functional.pad(window, (left, self.n_fft - length - left))
        area = filters.sum(dim=1)
        tensors = dict(
            filters=filters[: self.bands, :bins].T * divisor**settings.power,  # (bins, bands)
            spread=exponents(settings)[: self.bands, :bins] / settings.power,
            between=interpolation(settings)[: self.bands, :bins] / settings.power,
            # The mel of a spectrum whose amplitude is 1 everywhere; a band without a bin has none.
            flat=torch.where(area > 0, area, 1).log()[: self.bands],
            tilt=tilt(settings)[:bins] - math.log(divisor),
            window=window,
        )
        for name, value in tensors.items():
            self.register_buffer(f"_{name}", value.float().contiguous(), persistent=False)
        #: Deviation of the spectrum of white noise of deviation 1.
        self.gain = math.sqrt(float(window.square().sum()))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of all tables."""
        return self._window.dtype

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self._window.device

    def layout(self, frames: list[int]) -> Layout:
        """Lay out utterances of so many frames each."""
        hop, device = self.hop_length, self.device
        longest, sizes = max(frames), torch.tensor(frames, device=device)[:, None] * hop
        places = torch.arange((longest - 1) * hop + self.n_fft, device=device) - self.n_fft // 2
        period = (2 * sizes - 2).clamp(min=1)
        places = places.remainder(period)
        index = torch.minimum(places, period - places).clamp(min=0)
        inside = None
        if min(frames) < longest:
            inside = (torch.arange(longest, device=device) * hop < sizes)[..., None]
        windows = self._window.square().expand(len(frames), longest, -1)
        cover = self._overlap(windows if inside is None else windows * inside)
        least = LEAST_COVER * cover.max()
        there = torch.arange(cover.shape[1], device=device) < sizes
        return Layout(index, there / cover.clamp(min=least), inside)

    def spectrum(self, wav: Tensor, layout: Layout) -> Tensor:
        """Return the STFT, shape (B, frames, bins), of waveforms (B, samples)."""
        padded = wav.gather(1, layout.index.expand(len(wav), -1))
        return torch.fft.rfft(padded.unfold(1, self.n_fft, self.hop_length) * self._window)

    def waveform(self, spectrum: Tensor, layout: Layout) -> Tensor:
        """Return the waveforms (B, samples) whose STFT is nearest to a spectrum (B, frames, bins)."""
        frames = torch.fft.irfft(spectrum, self.n_fft).mul_(self._window)
        if layout.inside is not None:
            frames = frames * layout.inside
        return self._overlap(frames).mul_(layout.cover)

    def _overlap(self, frames: Tensor) -> Tensor:
        """Add frames (B, frames, n_fft) up where they lie: shape (B, frames * hop_length)."""
        hop, (batch, count, size) = self.hop_length, frames.shape
        pieces = -(-size // hop)
        if pieces * hop > size:
            frames = nn.functional.pad(frames, (0, pieces * hop - size))
        frames = frames.reshape(batch, count, pieces, hop)
        start = size // 2  # the middle of the first frame is the first sample
        out = frames.new_zeros(batch, max(count + pieces - 1, count + -(-start // hop)), hop)
        for piece in range(pieces):
            out[:, piece : piece + count] += frames[:, :, piece]
        return out.flatten(1)[:, start : start + count * hop]

    def log_mel(self, spectrum: Tensor) -> Tensor:
        """Return the natural logarithm of the mel, as features know it, shape (B, frames, bands)."""
        settings, magnitude = self.settings, spectrum.abs()
        if settings.least:
            magnitude.clamp_(min=settings.least / self._divisor)
        mel = (magnitude.square_() if settings.power == 2 else magnitude) @ self._filters
        return mel.clamp_(min=settings.floor).log_().clamp_(max=self._highest)

    def target(self, feats: Tensor) -> Tensor:
        """Return what :meth:`log_mel` has to become for features (B, frames, n_mels), shape (B, frames, bands)."""
        settings, feats = self.settings, feats[..., : self.bands]
        return ((feats - settings.offset) / settings.scale).clamp(math.log(settings.floor), self._highest)

    def gains(self, error: Tensor) -> Tensor:
        """Return the gain of each bin (B, frames, bins) that makes good errors of the log-mel (B, frames, bands)."""
        return (error @ self._spread).exp_()

    def envelope(self, feats: Tensor) -> Tensor:
        """Return the natural logarithm of the amplitude of each bin that features tell of a smooth spectrum.

        Args:
            feats: Features, shape (B, frames, n_mels).

        Returns:
            Of the STFT, shape (B, frames, bins). Where bands don't reach it falls.
        """
        return (self.target(feats) - self._flat) @ self._between + self._tilt

    def loudness(self, feats: Tensor) -> float:
        """Return the root mean square of sound with the smooth spectrum that features (frames, n_mels) tell."""
        power = self.envelope(feats[None]).mul(2).exp().sum(dim=-1).mean()
        return (2 * power / (self.n_fft * self.gain**2)).sqrt().item()

    @property
    def _highest(self) -> float:
        return (self.settings.highest - self.settings.offset) / self.settings.scale
