"""The source while features arrive."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic, usable
from flowavenet_plugin.vocoder.inversion.pieces import working_dtype
from flowavenet_plugin.vocoder.inversion.pitch import Pitch
from flowavenet_plugin.vocoder.inversion.start import PITCH_CONTEXT, PITCH_SEED
from flowavenet_plugin.vocoder.noise import NoiseSource
from flowavenet_plugin.vocoder.reading import MelReader
from flowavenet_plugin.vocoder.source.latent import Latent
from flowavenet_plugin.vocoder.source.pulses import PulseSource


class SourceSession:
    """The source of one utterance in pieces: pitch is read with some frames before and after each piece."""

    def __init__(self, source: PulseSource, phase: float, reader: MelReader | None = None) -> None:
        """Begin.

        Args:
            source: What makes it.
            phase: Phase of the pulses before the first sample, in periods.
            reader: What says the pitch; None: it is looked for in the features.
        """
        self._source, self._phase, self._reader = source, phase, reader
        self._calm = NoiseSource(PITCH_SEED)
        self._waiting: tuple[Tensor, Tensor] | None = None  # features, and what the pitch is read from, of each frame
        self._before = 0  # frames of context before those whose source is to come

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._source.pitch.low.device

    @own_arithmetic
    @torch.no_grad()
    def push(self, feats: Tensor, final: bool, said: Tensor | None = None) -> tuple[Tensor, Latent]:
        """Take features (frames, n_mels); return those whose source is there now, (frames, n_mels), and it.

        What the network says of their pitch, where there is one, has shape (frames, 1 + pitches).
        """
        feats = usable(feats).detach()
        if self._reader is None:  # noise
            size = len(feats), self._source.pitch.hop_length
            said = self._calm.draw(size[0] * size[1]).to(feats.device, working_dtype(feats)).view(size)
        new = feats, said
        if self._waiting is not None:
            new = tuple(torch.cat(pair) for pair in zip(self._waiting, new, strict=True))
        feats, said = self._waiting = new
        before, hop = self._before, self._source.hop_length
        ready = max(0, len(feats) - before - (0 if final else PITCH_CONTEXT))
        if ready == 0:
            return feats[:0], Latent(*(said.new_empty(1, 0) for _ in range(2)))
        if self._reader is None:
            pitch = self._source.pitch(feats[None].to(said), [len(feats)], said.view(1, -1))
        else:
            pitch = self._reader.path(said[None], [len(feats)])
        found = Pitch(*(part[:, before:] for part in pitch))
        phase = torch.full((1, 1), self._phase, dtype=torch.float64, device=feats.device)
        latent, periods = self._source.of_pitch(found, phase)
        self._phase = float(periods[0, ready * hop - 1])
        self._before = min(before + ready, PITCH_CONTEXT)
        cut = before + ready - self._before
        self._waiting = feats[cut:], said[cut:]
        return feats[before : before + ready], Latent(*(part[:, : ready * hop] for part in latent))
