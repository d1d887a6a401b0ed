"""Sound that refinement starts from, of whole utterances or while features arrive."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis
from flowavenet_plugin.vocoder.inversion.pitch import Pitch, PitchReader
from flowavenet_plugin.vocoder.inversion.source import at_samples, mixed, pulses, shaped
from flowavenet_plugin.vocoder.noise import NoiseSource, first_phase

#: Frames on either side of those whose pitch is read, while features arrive.
PITCH_CONTEXT = 24
#: Seed of the noise that the pitch is read from: it has nothing to do with the sound's own.
PITCH_SEED = 0


class Start(nn.Module):
    """Pulses at the pitch and noise, with the envelope of the features."""

    def __init__(self, analysis: FeatureAnalysis) -> None:
        """Make the tables.

        Args:
            analysis: Of the features; shared with the refinement.
        """
        super().__init__()
        self.analysis, self.pitch = analysis, PitchReader(analysis.settings)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of all tables."""
        return self.analysis.dtype

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.analysis.device

    @property
    def margin(self) -> int:
        """Frames on either side that a frame's sound is made of, besides those of the pitch."""
        return min(math.ceil(self.analysis.n_fft / self.analysis.hop_length) + 1, PITCH_CONTEXT)

    def forward(self, feats: Tensor, frames: list[int], noise: Tensor, phase: Tensor) -> Tensor:
        """Make the sound of whole utterances.

        Args:
            feats: Un-normalised features, shape (B, frames, n_mels).
            frames: Frames of each.
            noise: Noise, shape (B, frames * hop_length).
            phase: First phase of the pulses, from 0 to 1, float64, shape (B, 1).

        Returns:
            Shape (B, frames * hop_length).
        """
        calm = NoiseSource(PITCH_SEED).draw(max(frames) * self.pitch.hop_length).to(feats)
        found = self.pitch(feats, frames, calm.expand(len(feats), -1))
        voice, _ = self.voice(found, phase)
        return self.sound(feats, frames, voice, noise, found.voiced)

    def voice(self, pitch: Pitch, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Return pulses and their phase at each sample, shapes (B, samples); ``phase`` is that before them."""
        hertz = at_samples(pitch.hertz.double(), self.analysis.hop_length)
        voice, periods = pulses(hertz, self.analysis.settings.fs, phase)
        return voice.to(pitch.voiced), periods

    def sound(self, feats: Tensor, frames: list[int], voice: Tensor, noise: Tensor, voiced: Tensor) -> Tensor:
        """Mix pulses and noise, (B, samples) both, and give them the envelope."""
        layout = self.analysis.layout(frames)
        return shaped(self.analysis, mixed(self.analysis, voice, noise, voiced, layout), feats, layout)


class StartSession:
    """The same for one utterance in pieces: pitch is read with some frames before and after each piece."""

    def __init__(self, start: Start, noise: NoiseSource, temperature: float) -> None:
        """Begin.

        Args:
            start: What makes the sound.
            noise: Where the noise comes from; the first phase is drawn at once.
            temperature: Deviation of the noise.
        """
        self._start, self._noise, self._temperature = start, noise, temperature
        self._calm = NoiseSource(PITCH_SEED)
        self._phase = first_phase(noise)
        self._feats: Tensor | None = None  # frames of the context before, and those whose sound is to come
        self._drawn: tuple[Tensor, Tensor] | None = None  # noise of the pitch and of the sound, of the same frames
        self._past: tuple[Tensor, Tensor] | None = None  # pulses and voicing of the frames before
        self._before = 0  # frames of context before

    def push(self, feats: Tensor, final: bool) -> tuple[Tensor, Tensor]:
        """Take features (frames, n_mels) and return those whose sound is there now, and their sound."""
        new = [self._calm.draw(len(feats) * self._start.pitch.hop_length)]
        new += [self._noise.draw(len(feats) * self._start.analysis.hop_length) * self._temperature]
        new = [part.to(feats) for part in new]
        if self._feats is not None:
            feats = torch.cat([self._feats, feats])
            new = [torch.cat(pair) for pair in zip(self._drawn, new, strict=True)]
        self._feats, self._drawn = feats, tuple(new)
        ready = len(feats) - self._before - (0 if final else PITCH_CONTEXT + self._start.margin)
        if ready < 1:
            return feats[:0], new[1][:0]
        return self._make(ready)

    def _make(self, ready: int) -> tuple[Tensor, Tensor]:
        feats, (calm, noise), before, hop = self._feats, self._drawn, self._before, self._start.analysis.hop_length
        found = self._start.pitch(feats[None], [len(feats)], calm[None])
        found = Pitch(*(part[:, before:] for part in found))
        phase = torch.full((1, 1), self._phase, dtype=torch.float64, device=feats.device)
        voice, periods = self._start.voice(found, phase)
        self._phase = float(periods[0, ready * hop - 1])
        past = [voice[:, :0], found.voiced[:, :0]] if self._past is None else self._past
        voice, voiced = torch.cat([past[0], voice], dim=1), torch.cat([past[1], found.voiced], dim=1)
        skipped, count = before - past[1].shape[1], voiced.shape[1]
        wav = self._start.sound(feats[None, skipped:], [count], voice, noise[None, skipped * hop :], voiced)[0]
        done = count - (len(feats) - before) + ready  # of these frames, with those of the margin before
        first = done - ready
        oldest = max(0, done - self._start.margin)
        self._past = voice[:, oldest * hop : done * hop], voiced[:, oldest:done]
        made = feats[before : before + ready], wav[first * hop : done * hop]
        kept = min(before + ready, PITCH_CONTEXT)
        cut = before + ready - kept
        self._feats, self._before = feats[cut:], kept
        self._drawn = calm[cut * self._start.pitch.hop_length :], noise[cut * hop :]
        return made
