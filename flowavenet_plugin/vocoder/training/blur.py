"""Features as TTS models give them: smoother than those of speech."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Most often that features are smoothed, in time and over bands each.
MOST = 2


def blurred(feats: Tensor, share: float) -> Tensor:
    """Smooth some items by 1 2 1 (binomial), up to :data:`MOST` times in time and over bands; how often is drawn.

    Args:
        feats: Un-normalised features, shape (B, frames, n_mels).
        share: Part of the items that is smoothed at all, from 0 to 1.
    """
    times = torch.randint(MOST + 1, (2, len(feats)), device=feats.device)
    times = times * (torch.rand(len(feats), device=feats.device) < share)
    for done in range(MOST):
        feats = torch.where((times[0] > done)[:, None, None], smooth(feats.mT).mT, feats)
        feats = torch.where((times[1] > done)[:, None, None], smooth(feats), feats)
    return feats


def smooth(values: Tensor) -> Tensor:
    """Smooth values (B, rows, columns) along the last axis by 1 2 1; the ends are repeated."""
    padded = F.pad(values, (1, 1), mode="replicate")
    return (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
