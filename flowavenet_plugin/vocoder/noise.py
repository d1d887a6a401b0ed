"""Noise that sound is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class NoiseSource:
    """Standard normal noise; the same seed gives the same, however it is cut into pieces and on any device."""

    def __init__(self, seed: int | Sequence[int] | None) -> None:
        """Start; without a seed the noise comes from torch's global generator."""
        self._generator = None if seed is None else np.random.default_rng(seed)

    def draw(self, size: int) -> Tensor:
        """Return the next samples, shape (size,)."""
        if self._generator is None:
            return torch.randn(size, dtype=torch.float32, device="cpu")
        return torch.from_numpy(self._generator.standard_normal(size, dtype=np.float32))


def first_phase(noise: NoiseSource) -> float:
    """Draw the first phase of pulses, even from 0 to 1."""
    return 0.5 * math.erfc(float(noise.draw(1)[0]) / math.sqrt(2))
