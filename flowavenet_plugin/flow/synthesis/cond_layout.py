"""Where channels of the flow lie in natural time order.

The flow squeezes pairs of columns into channels, again and again, and its steps swap the halves of the channels. In
memory none of it needs to happen: with samples in their order of time the two halves of the channels are the even and
the odd samples, a column of block k is 2**k samples that lie beside each other, and what the flow calls channels are
these samples in bit-reversed order. So the columns of the weights are put into the order of the samples once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.layout import bit_reversal


def half_bands(n_mels: int) -> int:
    """Bands that one half of the conditioning touches; with an odd number of bands the middle one is in both."""
    return (n_mels + 1) // 2


def first_band(n_mels: int, half: int) -> int:
    """First band that a half of the conditioning touches."""
    return half * (n_mels // 2)


def cond_in_time(weight: Tensor, n_mels: int, block: int, half: int | None) -> Tensor:
    """Put the columns of a weight that reads one half of the squeezed conditioning into the order of time.

    Args:
        weight: Shape (out, n_mels * 2**(block - 1)).
        n_mels: Mel bands.
        block: Number of squeezes.
        half: 0 or 1; None: the conditioning is made for the block, and nothing changes.

    Returns:
        Weight for 2**block times :func:`half_bands` values, bands beside each other, shape (out, ...); what the half
        doesn't hold of a band is zero.
    """
    if half is None:
        return weight
    bands = half_bands(n_mels)
    channel = half * weight.shape[1] + torch.arange(weight.shape[1])
    band, phase = channel >> block, channel & (2**block - 1)
    column = bit_reversal(block)[phase] * bands + band - first_band(n_mels, half)
    out = weight.new_zeros(weight.shape[0], 2**block * bands)
    out[:, column.to(weight.device)] = weight
    return out
