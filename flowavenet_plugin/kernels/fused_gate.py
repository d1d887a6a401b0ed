"""The gated activation of WaveNet (van den Oord et al., 2016, arXiv 1609.03499, equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_activation(x: Tensor) -> Tensor:
    """Return tanh(filter) * sigmoid(gate).

    Args:
        x: Filter channels, then as many gate channels, shape (B, 2 * C, T).

    Returns:
        Activation, shape (B, C, T).
    """
    filter_, gate = x.chunk(2, dim=1)
    return torch.tanh(filter_) * torch.sigmoid(gate)
