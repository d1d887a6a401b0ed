"""The source while features arrive."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic, usable
from flowavenet_plugin.vocoder.inversion.pieces import working_dtype
from flowavenet_plugin.vocoder.inversion.pitch import Pitch
from flowavenet_plugin.vocoder.inversion.start import PITCH_CONTEXT, PITCH_SEED
from flowavenet_plugin.vocoder.noise import NoiseSource
from flowavenet_plugin.vocoder.source.latent import Latent
from flowavenet_plugin.vocoder.source.pulses import PulseSource


class SourceSession:
    """The source of one utterance in pieces: pitch is read with some frames before and after each piece."""

    def __init__(self, source: PulseSource, phase: float) -> None:
        """Begin.

        Args:
            source: What makes it.
            phase: Phase of the pulses before the first sample, in periods.
        """
        self._source, self._phase = source, phase
        self._calm = NoiseSource(PITCH_SEED)
        self._waiting: tuple[Tensor, Tensor] | None = None  # features and noise for the pitch, of the same frames
        self._before = 0  # frames of context before those whose source is to come

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._source.pitch.low.device

    @own_arithmetic
    @torch.no_grad()
    def push(self, feats: Tensor, final: bool) -> tuple[Tensor, Latent]:
        """Take features (frames, n_mels); return those whose source is there now, (frames, n_mels), and it."""
        feats = usable(feats).detach()
        new = feats, self._calm.draw(len(feats) * self._source.pitch.hop_length).to(feats.device, working_dtype(feats))
        if self._waiting is not None:
            new = tuple(torch.cat(pair) for pair in zip(self._waiting, new, strict=True))
        feats, calm = self._waiting = new
        before, hop = self._before, self._source.hop_length
        ready = max(0, len(feats) - before - (0 if final else PITCH_CONTEXT))
        if ready == 0:
            return feats[:0], Latent(*(calm.new_empty(1, 0) for _ in range(2)))
        pitch = self._source.pitch(feats[None].to(calm), [len(feats)], calm[None])
        found = Pitch(*(part[:, before:] for part in pitch))
        phase = torch.full((1, 1), self._phase, dtype=torch.float64, device=feats.device)
        latent, periods = self._source.of_pitch(found, phase)
        self._phase = float(periods[0, ready * hop - 1])
        self._before = min(before + ready, PITCH_CONTEXT)
        cut = before + ready - self._before
        self._waiting = feats[cut:], calm[cut * self._source.pitch.hop_length :]
        return feats[before : before + ready], Latent(*(part[:, : ready * hop] for part in latent))
