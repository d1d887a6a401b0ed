"""Features as TTS models give them: smoother than those of speech."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

#: Most often that features are smoothed, in time and over bands each.
MOST = 2


def blurred(feats: Tensor, share: float, frames: Sequence[int]) -> Tensor:
    """Smooth some items by 1 2 1 (binomial), up to :data:`MOST` times in time and over bands; how often is drawn.

    Args:
        feats: Un-normalised features, shape (B, frames, n_mels).
        share: Part of the items that is smoothed at all, from 0 to 1.
        frames: Frames of each item: what lies beyond isn't seen.
    """
    times = torch.randint(MOST + 1, (2, len(feats)), device=feats.device)
    times = times * (torch.rand(len(feats), device=feats.device) < share)
    for done in range(MOST):
        feats = continued(feats, frames)
        feats = torch.where((times[0] > done)[:, None, None], smooth(feats.mT).mT, feats)
        feats = torch.where((times[1] > done)[:, None, None], smooth(feats), feats)
    return feats


def continued(feats: Tensor, frames: Sequence[int]) -> Tensor:
    """Return features (B, frames, n_mels) whose padding goes on as each item ends; ``frames`` of each item."""
    if min(frames) == feats.shape[1]:
        return feats
    last = torch.tensor(frames, device=feats.device)[:, None] - 1
    places = torch.minimum(torch.arange(feats.shape[1], device=feats.device), last)
    return feats.gather(1, places[..., None].expand_as(feats))


def smooth(values: Tensor) -> Tensor:
    """Smooth values (B, rows, columns) along the last axis by 1 2 1; the ends are repeated."""
    padded = F.pad(values, (1, 1), mode="replicate")
    return (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
