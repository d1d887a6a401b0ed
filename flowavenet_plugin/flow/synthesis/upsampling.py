"""Upsampling of the conditioning in pieces, with bands beside each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet_plugin.flow.upsample import LEAKY_SLOPE


class Upsampling:
    """The layers of a :class:`~flowavenet_plugin.flow.upsample.ConditionUpsampler` as small matrices."""

    def __init__(self, upsampler: nn.Module) -> None:
        """Turn each transposed convolution into a product with the columns and bands around a value."""
        self.scales, self.reach = tuple(upsampler.scales), upsampler.reach
        self.weights = [self._matrix(layer, s) for layer, s in zip(upsampler.layers, self.scales, strict=True)]
        self.biases = [layer.bias.detach() for layer in upsampler.layers]

    @staticmethod
    def _matrix(layer: nn.Module, scale: int) -> Tensor:
        """Return the weight of (column offset, band offset) for each of ``scale`` outputs, shape (scale, 9)."""
        kernel, pad = layer.weight.detach()[0, 0], layer.padding[1]  # (3 bands, 2 * scale)
        out = kernel.new_zeros(scale, 3, 3)
        for offset in (-1, 0, 1):
            for phase in range(scale):
                tap = phase + pad - offset * scale
                if 0 <= tap < 2 * scale:
                    out[phase, offset + 1] = kernel[:, tap].flip(0)
        return out.reshape(scale, 9)

    def __call__(self, frames: Tensor, first: int, last: int, total: int | None, lengths: Tensor | None) -> Tensor:
        """Upsample some frames.

        Args:
            frames: Conditioning of frames from ``max(0, first - reach)`` on, to at least ``last + reach`` or to the
                end, shape (B, frames, n_mels).
            first: First frame to upsample.
            last: One beyond the last.
            total: Frames of the utterance; None: not known yet.
            lengths: Frames of each item, shape (B,); beyond, the conditioning is zero. None: all end at ``total``.

        Returns:
            Conditioning at the sampling rate, shape (B, (last - first) * hop_length, n_mels).
        """
        start = max(0, first - self.reach)
        rate, margin = 1, self.reach
        x = _clear(frames, start, lengths, rate)
        for scale, weight, bias in zip(self.scales, self.weights, self.biases, strict=True):
            x = _layer(x, weight, bias)
            rate *= scale
            start *= scale
            margin -= 1  # what the next layers read; what was computed without its neighbours is never seen
            low = max(0, first * rate - margin)
            high = last * rate + margin if total is None else min(last * rate + margin, total * rate)
            x = _clear(x[:, low - start : high - start], low, lengths, rate)
            start = low
        return x


def _layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Upsample (B, columns, bands) by the rows of ``weight`` (scale, 9)."""
    batch, columns, bands = x.shape
    padded = F.pad(x, (1, 1, 1, 1))
    around = [padded[:, i : i + columns, j : j + bands] for i in range(3) for j in range(3)]
    out = torch.matmul(weight, torch.stack(around, dim=2))  # (B, columns, scale, bands)
    return F.leaky_relu_(out.add_(bias), LEAKY_SLOPE).view(batch, -1, bands)


def _clear(x: Tensor, start: int, lengths: Tensor | None, rate: int) -> Tensor:
    if lengths is None:
        return x
    inside = torch.arange(start, start + x.shape[1], device=x.device) < (lengths * rate)[:, None]
    return x * inside[:, :, None]
