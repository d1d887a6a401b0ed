"""Conditioning from frame rate to sample rate (arXiv 1811.02155, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

LEAKY_SLOPE = 0.4


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Mark the first ``lengths[b]`` of ``size`` columns: (B,) to bool (B, 1, size)."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None])[:, None]


class ConditionUpsampler(nn.Module):
    """Transposed convolutions over (mel band, time), one per scale, each followed by a leaky ReLU."""

    def __init__(self, scales: Sequence[int]) -> None:
        """Build one layer per scale.

        Args:
            scales: Upsampling factors; their product is the hop length in samples.
        """
        super().__init__()
        self.scales = tuple(scales)
        self.layers = nn.ModuleList(weight_norm(self._layer(scale)) for scale in scales)

    @staticmethod
    def _layer(scale: int) -> nn.ConvTranspose2d:
        # An odd kernel surplus can't be cut evenly: one more is cut on both sides and one column is added at the end.
        return nn.ConvTranspose2d(
            1, 1, (3, 2 * scale), stride=(1, scale), padding=(1, (scale + 1) // 2), output_padding=(0, scale % 2)
        )

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.scales)

    @property
    def reach(self) -> int:
        """Frames on each side that a frame's samples depend on, at most: each layer reads one column on each side."""
        return len(self.scales)

    def forward(self, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Upsample.

        Args:
            cond: Conditioning, shape (B, D, frames).
            lengths: Frames of each item, shape (B,); what lies beyond is treated as if it weren't there. None: all.

        Returns:
            Conditioning at the sampling rate, shape (B, D, frames * hop_length).
        """
        if lengths is not None:
            cond = cond * length_mask(lengths, cond.shape[2])
        out = cond[:, None]  # (B, 1, D, frames)
        for layer, scale in zip(self.layers, self.scales, strict=True):
            out = F.leaky_relu(layer(out), LEAKY_SLOPE)
            if lengths is not None:
                lengths = lengths * scale
                out = out * length_mask(lengths, out.shape[3])[:, None]
        return out[:, 0]
