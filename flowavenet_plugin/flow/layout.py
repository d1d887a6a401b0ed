"""Where samples and conditioning lie: squeezed columns, their halves, and the same in the order of time.

Squeezing pairs of columns into channels, again and again, leaves what the flow calls channels in bit-reversed order of
time; the two halves of the channels are the samples at even and at odd places.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squeeze(x: Tensor, times: int = 1) -> Tensor:
    """Turn pairs of columns into channels: (B, C, T) to (B, 2 * C, T / 2); channel 2 * c + p holds phase p of c.

    ``times``: so many times, one after the other.
    """
    if times > 1:
        x = squeeze(x, times - 1)
    batch, channels, length = x.shape
    return x.reshape(batch, channels, length // 2, 2).transpose(2, 3).reshape(batch, 2 * channels, length // 2)


def unsqueeze(x: Tensor, times: int = 1) -> Tensor:
    """Undo :func:`squeeze`: (B, 2 * C, T / 2) to (B, C, T)."""
    if times > 1:
        x = unsqueeze(x, times - 1)
    batch, channels, length = x.shape
    return x.reshape(batch, channels // 2, 2, length).transpose(2, 3).reshape(batch, channels // 2, 2 * length)


def from_halves(first: Tensor, other: Tensor, half: int) -> Tensor:
    """Put two halves (B, C / 2, T), of which the first is ``half``, beside each other: (B, C, T)."""
    return torch.cat([first, other] if half == 0 else [other, first], dim=1)


def half_first(x: Tensor, half: int) -> Tensor:
    """Put a half of the channels of (B, C, T) before the other one; its own inverse."""
    return x if half == 0 else from_halves(*x.chunk(2, dim=1), half)


def picked_halves(x: Tensor, halves: tuple[int, ...] | None) -> Tensor:
    """Return halves of the second dimension in this order; None: all as it is."""
    if halves in (None, (0, 1)):
        return x
    parts = x.chunk(2, dim=1)
    return parts[halves[0]] if len(halves) == 1 else torch.cat([parts[k] for k in halves], dim=1)


def bit_reversal(bits: int) -> Tensor:
    """Return for each of ``2**bits`` channels the place in time of what it holds, shape (2**bits,)."""
    order = torch.zeros(1, dtype=torch.long)
    for _ in range(bits):
        order = torch.cat([2 * order, 2 * order + 1])
    return order


def cond_order(n_mels: int, level: int) -> Tensor:
    """Return where each channel of squeezed conditioning is among the values of ``2**level`` columns, (D,)."""
    n = 2**level
    return squeeze(torch.arange(n * n_mels, device="cpu").view(1, n, n_mels).transpose(1, 2), level).flatten()


def squeezed_cond(cond: Tensor, order: Tensor | None, columns: int) -> Tensor:
    """Turn the conditioning that blocks share, (B, T * n, D / n), into a block's, (B, D, columns).

    Args:
        cond: The conditioning.
        order: From :func:`cond_order`; None: it is squeezed already, (B, columns, D).
        columns: Columns of the block.
    """
    cond = cond.reshape(cond.shape[0], columns, -1)
    return (cond if order is None else gather_channels(cond, order)).transpose(1, 2)


def gather_channels(values: Tensor, places: Tensor) -> Tensor:
    """Pick from the last dimension; on a CPU several times faster than index_select."""
    return values.gather(2, places.expand_as(values))


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
