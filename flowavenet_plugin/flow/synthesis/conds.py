"""Buffers of a synthesis in pieces: the conditioning of the samples that some step still needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.conditioner import BlockConditioner
from flowavenet_plugin.flow.layout import first_band, half_bands
from flowavenet_plugin.flow.synthesis.folded_flow import FoldedFlow


class CondBuffer:
    """Conditioning at the sampling rate, in two halves of the bands, while frames arrive.

    Attributes:
        end: One beyond the last sample whose conditioning is there.
    """

    def __init__(self, flow: FoldedFlow, batch: int, lengths: Tensor | None) -> None:
        """Start empty; ``lengths`` are the samples of each item, shape (B,), if they differ."""
        self.end = 0
        self._flow, self._net = flow, flow.upsampler
        self._ends = None if lengths is None else -(-lengths // flow.hop_length)  # frames
        self._frames = torch.empty(batch, 0, flow.n_mels, dtype=flow.float_dtype, device=flow.device)
        self._first = 0  # frame that _frames starts with
        self._start = 0  # sample that the rows start with
        sizes = self._sizes().items()
        self._rows = {key: self._frames.new_empty(batch, 0, size, dtype=flow.dtype) for key, size in sizes}

    def push(self, frames: Tensor, final: bool) -> None:
        """Take frames (B, n, n_mels); ``final``: they are the last."""
        self._frames = torch.cat([self._frames, frames.to(self._frames)], dim=1)
        end, keep, made = self._made(self._first + self._frames.shape[1], final)
        for key, new in made.items():
            self._rows[key] = torch.cat([self._rows[key], new.to(self._flow.dtype)], dim=1)
        if end > self.end:
            self._frames, self._first, self.end = self._frames[:, keep - self._first :].clone(), keep, end

    def rows(self, block: int, half: int | None, first: int, last: int) -> Tensor:
        """Return the conditioning of rows from first to last of the block of so many squeezes, (B, n, values)."""
        values = self._rows[half][:, (first << block) - self._start : (last << block) - self._start]
        return values.view(values.shape[0], last - first, -1)

    def drop(self, first: int) -> None:
        """Forget the samples before ``first``."""
        if first > self._start:
            for key, rows in self._rows.items():
                level = self._level(key)
                self._rows[key] = rows[:, (first >> level) - (self._start >> level) :].clone()
            self._start = first

    def _sizes(self) -> dict[int, int]:
        """Return the values of a row of each part."""
        return dict.fromkeys(range(2), half_bands(self._flow.n_mels))

    def _level(self, key: int) -> int:
        """Return the level of a part's rows: each is of ``2**level`` samples."""
        return 0

    def _made(self, count: int, final: bool) -> tuple[int, int, dict[int, Tensor]]:
        """Return the end of what can be made of the frames before ``count``, the first frame still needed, new rows."""
        flow, done, reach = self._flow, self.end // self._flow.hop_length, self._net.reach
        last = count if final else count - reach
        if last <= done:
            return self.end, 0, {}
        values = self._net(self._frames, done, last, count if final else None, self._ends)
        end = self._whole_columns(count) if final else last * flow.hop_length
        starts = {half: first_band(flow.n_mels, half) for half in range(2)}
        values = F.pad(values, (0, 0, 0, end - last * flow.hop_length))
        made = {half: values[:, :, start : start + half_bands(flow.n_mels)] for half, start in starts.items()}
        return end, max(0, last - reach), made

    def _whole_columns(self, frames: int) -> int:
        """Return the samples of frames, rounded up to whole columns."""
        return -(-frames * self._flow.hop_length // self._flow.column) * self._flow.column


class BlockCondBuffer(CondBuffer):
    """Conditioning at each block's own rate, from a :class:`~flowavenet_plugin.flow.conditioner.BlockConditioner`."""

    def rows(self, block: int, half: int | None, first: int, last: int) -> Tensor:
        """See :meth:`CondBuffer.rows`."""
        start = self._start >> block
        return self._rows[block][:, first - start : last - start]

    def _sizes(self) -> dict[int, int]:
        return dict(zip(self._net.levels, self._net.channels, strict=True))

    def _level(self, key: int) -> int:
        return key

    def _made(self, count: int, final: bool) -> tuple[int, int, dict[int, Tensor]]:
        hop, column, reach = self._flow.hop_length, self._flow.column, self._net.net_reach
        last = count if final else max(0, count - reach)
        end = self._whole_columns(count) if final else max(0, last - 1) * hop
        if end <= self.end:
            return self.end, 0, {}
        places = torch.arange(self._first, count, device=self._frames.device)
        inside, made = None if self._ends is None else places < self._ends[:, None], {}
        for level, embedded in zip(self._net.levels, self._net.embed(self._frames, inside), strict=True):
            done, known = (self._start >> level) + self._rows[level].shape[1], embedded[:, : last - self._first]
            made[level] = self._net.between(known, self._first, self._ends, level, done, end >> level)
        # The longest column that isn't there yet begins here.
        return end, max(0, end // column * column // hop - reach), made


def cond_buffer(flow: FoldedFlow, batch: int, lengths: Tensor | None) -> CondBuffer:
    """Start to make conditioning; arguments as of :class:`CondBuffer`."""
    kind = BlockCondBuffer if isinstance(flow.upsampler, BlockConditioner) else CondBuffer
    return kind(flow, batch, lengths)
