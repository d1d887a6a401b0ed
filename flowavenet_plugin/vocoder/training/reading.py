"""What a network that reads features learns from recordings: their features from smooth ones, and their pitch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowavenet_plugin.vocoder.inversion.pitch import PER_OCTAVE, Pitch, pitches_looked_for
from flowavenet_plugin.vocoder.inversion.settings import FeatureSettings
from flowavenet_plugin.vocoder.reading import Reading
from flowavenet_plugin.vocoder.training.blur import blurred, continued, smooth

#: Share of segments that are smoothed, and of those with noise.
SMOOTHED, NOISY = 0.7, 0.5
#: Most noise of a log-mel, and how much quieter and louder segments become, in nats.
NOISE, LEVELS = 0.05, (-1.2, 0.7)
#: Deviation of what counts as the right pitch, in steps of the pitches that are looked for.
WIDTH = 0.8
#: Weight of the pitch (nats per frame) beside that of features (nats).
PITCH = 0.25


def reading_loss(
    read: Callable[[Tensor, list[int]], Reading],
    feats: Tensor,
    pitch: Pitch,
    frames: list[int],
    settings: FeatureSettings,
    training: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a network that reads features.

    Args:
        read: Reads features (B, frames, n_mels), given the frames of each item.
        feats: Un-normalised features of recordings, shape (B, frames, n_mels).
        pitch: That of the recordings.
        frames: Frames of each item.
        settings: Of the features.
        training: Whether what is read is made different at random; otherwise it is read as it is, and smoothed once.

    Returns:
        The loss, and ``reader_mel``, the mean difference from the recordings' log-mel in nats, and ``reader_pitch``,
        the cross-entropy of the pitch in nats per frame; 0-dim each.
    """
    if training:
        feats, given = _varied(feats, frames, settings)
    else:
        given = torch.cat([feats, smooth(smooth(continued(feats, frames).mT).mT)])
        feats, frames = feats.repeat(2, 1, 1), frames * 2
        pitch = Pitch(*(part.repeat(2, 1) for part in pitch))
    reading = read(given, frames)
    counts = torch.tensor(frames, device=feats.device)
    inside = (torch.arange(feats.shape[1], device=feats.device) < counts[:, None]).to(feats)
    share = inside / inside.sum()
    mel = ((reading.feats - feats).abs().mean(dim=2) * share).sum() / settings.scale
    told = -((_right(pitch).to(feats) * reading.pitch).sum(dim=2) * share).sum()
    return mel + PITCH * told, dict(reader_mel=mel, reader_pitch=told)


def _varied(feats: Tensor, frames: list[int], settings: FeatureSettings) -> tuple[Tensor, Tensor]:
    """Return features at other levels, and what is read for them: smooth, and with noise."""
    count = len(feats)

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, device=feats.device, dtype=feats.dtype)

    lowest = settings.scale * torch.tensor(settings.floor).log().item() + settings.offset
    feats = (feats + settings.scale * drawn(*LEVELS)).clamp(lowest, settings.highest)
    size = settings.scale * drawn(0, NOISE) * (drawn(0, 1) < NOISY)
    return feats, blurred(feats, SMOOTHED, frames) + size * torch.randn_like(feats)


def _right(pitch: Pitch) -> Tensor:
    """Return how probable no pitch and each pitch should be, shape (B, frames, 1 + pitches)."""
    pitches = pitches_looked_for().to(pitch.hertz)
    steps = PER_OCTAVE * (pitch.hertz[..., None] / pitches).log2()
    voiced = pitch.voiced[..., None]
    return torch.cat([1 - voiced, voiced * torch.softmax(-0.5 * (steps / WIDTH).square(), dim=2)], dim=2)
