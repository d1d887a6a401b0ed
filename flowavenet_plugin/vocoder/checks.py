"""Does what a vocoder is given fit it?"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_temperature(temperature: float) -> float:
    """Return a temperature that is possible.

    Raises:
        ValueError: If it is below 0 or no number.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be a number from 0, not {temperature}")
    return float(temperature)


def check_feats(feats: Tensor, n_mels: int) -> None:
    """Check the features of an utterance.

    Raises:
        ValueError: If their shape isn't (frames, n_mels), or a value is not finite.
    """
    if feats.dim() != 2 or feats.shape[1] != n_mels or feats.shape[0] == 0:
        raise ValueError(f"expected features of shape (frames, {n_mels}), got {tuple(feats.shape)}")
    if not torch.isfinite(feats).all():
        raise ValueError("the features hold values that are not finite")


def check_lengths(wav_lengths: Tensor, feats_lengths: Tensor, hop_length: int) -> None:
    """Check that waveforms end within the last frame of their features.

    Args:
        wav_lengths: Samples of each item, shape (B,).
        feats_lengths: Frames of each item, shape (B,).
        hop_length: Samples per frame.

    Raises:
        ValueError: If an item's don't.
    """
    whole = feats_lengths * hop_length
    wrong = (wav_lengths > whole) | (wav_lengths < whole - hop_length) | (wav_lengths < 1)
    if wrong.any():
        i = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"{int(wav_lengths[i])} samples don't fit {int(feats_lengths[i])} frames of {hop_length} samples"
        )
