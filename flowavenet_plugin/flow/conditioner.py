"""Conditioning made for each block at its own rate, from a small network that runs on frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRONT_KERNEL_SIZE = 5
KERNEL_SIZE = 3


class BlockConditioner(nn.Module):
    """Convolutions over frames that all blocks share, a projection for each block, and lines between the frames.

    Frame i stands for the sample i * hop_length, its window's centre. A column of a block reads what lies on the line
    from the frame before its middle to the frame after. The network costs little, since it runs once per frame; the
    flows of a block share what it gives.
    """

    def __init__(
        self, n_mels: int, hop_length: int, levels: Sequence[int], channels: Sequence[int], width: int, n_layer: int
    ) -> None:
        """Build the network.

        Args:
            n_mels: Mel bands.
            hop_length: Samples per frame.
            levels: Of each block: its columns are ``2**level`` samples.
            channels: Conditioning channels of each block.
            width: Channels of the hidden layers.
            n_layer: Residual layers after the first layer.
        """
        super().__init__()
        self.hop_length, self.levels, self.channels = hop_length, tuple(levels), tuple(channels)
        self.front = nn.Conv1d(n_mels, width, FRONT_KERNEL_SIZE, padding=FRONT_KERNEL_SIZE // 2)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, KERNEL_SIZE, padding=KERNEL_SIZE // 2) for _ in range(n_layer)
        )
        self.outs = nn.ModuleList(nn.Conv1d(width, size, 1) for size in channels)

    @property
    def net_reach(self) -> int:
        """Frames on each side that :meth:`embed` reads."""
        return FRONT_KERNEL_SIZE // 2 + KERNEL_SIZE // 2 * len(self.layers)

    @property
    def reach(self) -> int:
        """Frames on each side that a frame's samples depend on, at most."""
        return self.net_reach + 1

    def forward(self, cond: Tensor, lengths: Tensor | None, samples: int) -> list[Tensor]:
        """Make the conditioning of each block.

        Args:
            cond: Features, shape (B, n_mels, frames).
            lengths: Frames of each item, shape (B,); what lies beyond is treated as if it weren't there. None: all.
            samples: Samples to make it for, a multiple of every block's column.

        Returns:
            Of each block, shape (B, samples / 2**level, channels).
        """
        places = torch.arange(cond.shape[2], device=cond.device)
        inside = None if lengths is None else places < lengths[:, None]
        embedded = self.embed(cond.transpose(1, 2), inside)
        return [
            self.between(values, 0, lengths, level, 0, samples >> level)
            for level, values in zip(self.levels, embedded, strict=True)
        ]

    def embed(self, frames: Tensor, inside: Tensor | None = None) -> list[Tensor]:
        """Run the network.

        Args:
            frames: Features, shape (B, frames, n_mels).
            inside: Which frames count, bool, shape (B, frames); None: all.

        Returns:
            For each block, shape (B, frames, channels).
        """
        mask = None if inside is None else inside[:, None]
        h = frames.transpose(1, 2)
        h = F.relu(self.front(h if mask is None else h * mask))
        for layer in self.layers:
            h = h + F.relu(layer(h if mask is None else h * mask))
        return [out(h).transpose(1, 2) for out in self.outs]

    def between(self, embedded: Tensor, start: int, ends: Tensor | None, level: int, first: int, last: int) -> Tensor:
        """Read columns off the lines between frames; after its last frame an item stays at that one's values.

        Args:
            embedded: Of frames from ``start`` on, shape (B, n, channels).
            start: See above.
            ends: Frames of each item, shape (B,); None: all have those that are there.
            level: Of the block.
            first: First column.
            last: One beyond the last.

        Returns:
            Shape (B, last - first, channels).
        """
        # In half samples: a column's middle lies between two samples.
        middle = (2 * torch.arange(first, last, device=embedded.device) + 1) * 2**level - 1
        frame = torch.div(middle, 2 * self.hop_length, rounding_mode="floor")
        weight = (middle - 2 * self.hop_length * frame).to(embedded.dtype) / (2 * self.hop_length)
        if ends is not None:
            weight = weight * (frame + 1 < ends[:, None])
        top = embedded.shape[1] - 1
        before, after = (embedded.index_select(1, (frame + k - start).clamp(max=top)) for k in (0, 1))
        return torch.lerp(before, after, weight[..., None])
