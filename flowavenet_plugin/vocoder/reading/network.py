"""The network that reads features.

A TTS model's mel-spectrogram is smoother than any of speech, and a vocoder says what it is told: harmonics that are
blurred come out as noise. On frames a network costs nothing beside one on samples, and what it learns, how speech's
features differ from smooth ones, needs no vocoder. Its other task is the pitch, which smooth features hide from
whoever looks for harmonics. Blocks are those of ConvNeXt (Liu et al., arXiv 2201.03545), as in Vocos (Siuzdak, arXiv
2306.00814).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet_plugin.vocoder.inversion.pieces import working_dtype
from flowavenet_plugin.vocoder.inversion.pitch import Pitch, octaves_between, pitches_looked_for
from flowavenet_plugin.vocoder.inversion.pitch_path import best_path, filled

#: Frames that the first convolution sees, and each of the others.
FIRST, KERNEL = 5, 7
#: Channels inside a layer, over those between layers; and what a layer's result counts for at first.
WIDER, SCALE = 2, 0.3
#: What a change of the pitch by an octave costs in nats, and a change of voicing.
JUMP, SWITCH = 10.8, 2.0
#: Pitches on either side of the best that tell where the pitch lies between them.
AROUND = 3


class Reading(NamedTuple):
    """What features say.

    Attributes:
        feats: What they would be of speech, un-normalised, shape (B, frames, n_mels).
        pitch: Log-probability (nats) of no pitch and of each that is looked for, shape (B, frames, 1 + pitches); None:
            no network read them.
    """

    feats: Tensor
    pitch: Tensor | None


class Layer(nn.Module):
    """A residual layer: a convolution over frames of each channel, then two linear maps of each frame."""

    def __init__(self, channels: int) -> None:
        """Build.

        Args:
            channels: In and out.
        """
        super().__init__()
        self.frames = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, WIDER * channels), nn.Linear(WIDER * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), SCALE))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, frames, channels) to the same shape."""
        inside = self.norm(self.frames(hidden.transpose(1, 2)).transpose(1, 2))
        return hidden + self.scale * self.down(F.gelu(self.up(inside)))


class MelReader(nn.Module):
    """Reads standardised features; before training it leaves them as they are."""

    def __init__(self, n_mels: int, channels: int, layers: int) -> None:
        """Build.

        Args:
            n_mels: Mel bands.
            channels: Between layers.
            layers: Their number.
        """
        super().__init__()
        pitches = pitches_looked_for()
        self.first = nn.Conv1d(n_mels, channels, FIRST, padding=FIRST // 2)
        self.layers = nn.ModuleList(Layer(channels) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.feats, self.pitch = nn.Linear(channels, n_mels), nn.Linear(channels, 1 + len(pitches))
        for parameter in self.feats.parameters():
            nn.init.zeros_(parameter)
        self._pitches, self._change = pitches.numpy(), JUMP * octaves_between(pitches).numpy()

    @property
    def reach(self) -> int:
        """Frames on either side that a frame's reading depends on."""
        return FIRST // 2 + len(self.layers) * (KERNEL // 2)

    def forward(self, cond: Tensor, frames: list[int]) -> tuple[Tensor, Tensor]:
        """Read.

        Args:
            cond: Standardised features, shape (B, frames, n_mels).
            frames: Frames of each item: what lies beyond isn't seen.

        Returns:
            What is to be added to them, same shape, and logits of no pitch and of each, (B, frames, 1 + pitches).
        """
        inside = None
        if min(frames) < cond.shape[1]:
            counts = torch.tensor(frames, device=cond.device)[:, None, None]
            inside = torch.arange(cond.shape[1], device=cond.device)[:, None] < counts
        hidden = self.first(_kept(cond, inside).transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            hidden = layer(_kept(hidden, inside))
        hidden = self.norm(hidden)
        return self.feats(hidden), self.pitch(hidden)

    def path(self, pitch: Tensor, frames: list[int]) -> Pitch:
        """Find the pitch of each item, of :attr:`Reading.pitch`."""
        hertz, voiced = (pitch.new_zeros(pitch.shape[:2], dtype=working_dtype(pitch)) for _ in range(2))
        for item, count in enumerate(frames):
            said = pitch[item, :count].double().cpu().numpy()
            for target, values in zip((hertz, voiced), self._along(said), strict=True):
                target[item, :count] = torch.from_numpy(values)
                target[item, count:] = target[item, count - 1]
        return Pitch(hertz, voiced)

    def _along(self, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pitch in Hz and voicing (frames,) of log-probabilities (frames, 1 + pitches)."""
        path = best_path(said[:, 1:], said[:, 0], self._change, SWITCH)
        if (path < 0).all():
            return np.full(len(path), 2 * self._pitches[0]), np.zeros(len(path))
        near = np.clip(path[:, None] + np.arange(-AROUND, AROUND + 1), 0, len(self._pitches) - 1)
        share = np.exp(np.take_along_axis(said, 1 + near, axis=1))
        share = np.maximum(share, 1e-30)
        mean = (share * np.log(self._pitches[near])).sum(axis=1) / share.sum(axis=1)
        hertz, voiced = filled(path, np.exp(mean))
        return hertz, voiced.astype(np.float64)


def _kept(values: Tensor, inside: Tensor | None) -> Tensor:
    return values if inside is None else values * inside
