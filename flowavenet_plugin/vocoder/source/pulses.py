"""Pulses at the pitch as the mean of the noise."""

from __future__ import annotations

from torch import Tensor, nn

from flowavenet_plugin.vocoder.inversion.pieces import working_dtype
from flowavenet_plugin.vocoder.inversion.pitch import Pitch, PitchReader
from flowavenet_plugin.vocoder.inversion.settings import FeatureSettings
from flowavenet_plugin.vocoder.inversion.source import at_samples, pulses_at
from flowavenet_plugin.vocoder.inversion.start import PITCH_SEED
from flowavenet_plugin.vocoder.noise import NoiseSource
from flowavenet_plugin.vocoder.source.closures import closures
from flowavenet_plugin.vocoder.source.latent import Latent

#: Share of the deviation that pulses have where speech is voiced: the rest, sqrt(1 - SHARE^2), is noise.
SHARE = 0.95


class PulseSource(nn.Module):
    """Pulses where speech is voiced, noise besides and elsewhere; of unit power together."""

    def __init__(self, settings: FeatureSettings) -> None:
        """Make the tables.

        Args:
            settings: Of the features.
        """
        super().__init__()
        self.pitch = PitchReader(settings)
        self.fs, self.hop_length = settings.fs, settings.hop_length

    def read(self, feats: Tensor, frames: list[int]) -> Pitch:
        """Look for the pitch of un-normalised features (B, frames, n_mels); ``frames`` of each item."""
        calm = NoiseSource(PITCH_SEED).draw(max(frames) * self.pitch.hop_length).to(feats)
        return self.pitch(feats, frames, calm.expand(len(feats), -1))

    def of_pitch(self, pitch: Pitch, phase: Tensor) -> tuple[Latent, Tensor]:
        """Make the source of a pitch, given the phase before the first sample in periods, float64, (B, 1).

        Returns the phase at each sample, too, (B, samples).
        """
        hertz = at_samples(pitch.hertz.double(), self.hop_length)
        periods = phase + (hertz / self.fs).cumsum(dim=1)
        return self._mixed(hertz, periods, pitch.voiced), periods

    def of_recording(self, wav: Tensor, residual: Tensor, frames: list[int]) -> tuple[Latent, Tensor]:
        """Make the source of recordings, with their own pitch and pulses where theirs are.

        Args:
            wav: Shape (B, frames * hop_length).
            residual: What the linear prediction leaves of them, same shape.
            frames: Frames of each item.

        Returns:
            The source, and 1 or -1, shape (B, 1): which way the recording's pulses point. Those of the source point
            up: a recording that was turned over sounds the same, and its features are the same.
        """
        wav, residual = (x.to(working_dtype(x)) for x in (wav, residual))
        pitch = self.pitch.of_recording(wav, frames)
        hertz = at_samples(pitch.hertz.double(), self.hop_length)
        periods, sign = closures(residual, (hertz / self.fs).cumsum(dim=1), pitch.voiced, self.hop_length, self.fs)
        return self._mixed(hertz, periods, pitch.voiced), sign

    def _mixed(self, hertz: Tensor, periods: Tensor, voiced: Tensor) -> Latent:
        share = SHARE * at_samples(voiced, self.hop_length)
        mean = share * pulses_at(periods, hertz, self.fs).to(share)
        return Latent(mean, (1 - share.square()).sqrt())
