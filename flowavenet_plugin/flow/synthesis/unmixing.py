"""Mixed channels and ActNorm of a step for inference, undone on both streams at once."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product


class Unmixing:
    """Map columns y to matrix y * factor + shift; those that hold padding to y * factor + shift."""

    def __init__(self, matrix: Tensor, factor: Tensor, shift: Tensor) -> None:
        """Fold the weights, for the first stream's samples of a column in their order of time, then the second's.

        Args:
            matrix: Inverse of what mixed the channels, float64, shape (C, C).
            factor: Of ActNorm's inverse, shape (C,).
            shift: Of the same, shape (C,).
        """
        self.weight, self.factor, self.shift = (matrix.t() * factor).contiguous(), factor, shift

    def __call__(self, a: Tensor, b: Tensor, whole: Tensor | None) -> tuple[Tensor, Tensor]:
        """Change both streams.

        Args:
            a: Values of the stream that was read, shape (B, rows * C / 2).
            b: Of the one that was changed, the same shape.
            whole: Which rows hold no padding, bool, shape (B or 1, rows, 1); None: all.
        """
        width = self.factor.shape[0] // 2
        y = torch.cat([a.unflatten(1, (-1, width)), b.unflatten(1, (-1, width))], dim=2)
        x = exact_product(y, self.weight)
        x = x if whole is None else torch.where(whole, x, y * self.factor)
        x = x.add_(self.shift)
        return x[:, :, :width].flatten(1), x[:, :, width:].flatten(1)
