"""Buffers of a synthesis in pieces: the conditioning of the samples that some step still needs."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.conditioner import BlockConditioner
from flowavenet_plugin.flow.synthesis.cond_layout import first_band, half_bands
from flowavenet_plugin.flow.synthesis.folded_flow import FoldedFlow


class CondSource(Protocol):
    """What gives conditioning, while frames arrive."""

    @property
    def end(self) -> int:
        """One beyond the last sample whose conditioning is there."""

    def push(self, frames: Tensor, final: bool) -> None:
        """Take frames (B, n, n_mels); ``final``: they are the last."""

    def rows(self, block: int, half: int | None, first: int, last: int) -> Tensor:
        """Return the conditioning of rows from first to last of the block of so many squeezes, (B, n, values)."""

    def drop(self, first: int) -> None:
        """Forget the samples before ``first``."""


class CondBuffer:
    """Conditioning at the sampling rate, of the samples that some step still needs."""

    def __init__(self, flow: FoldedFlow, batch: int, lengths: Tensor | None) -> None:
        """Start empty; ``lengths`` are the samples of each item, shape (B,), if they differ."""
        self._flow = flow
        self._lengths = lengths
        self._frames = torch.empty(batch, 0, flow.n_mels, dtype=flow.float_dtype, device=flow.device)
        self._first = 0  # frame that _frames starts with
        self._count = 0  # frames so far
        self._done = 0  # frames upsampled so far
        self._start = 0  # sample that the halves start with
        bands = half_bands(flow.n_mels)
        self._halves = [self._frames.new_empty(batch, 0, bands, dtype=flow.dtype) for _ in range(2)]

    def push(self, frames: Tensor, final: bool) -> None:
        """See :class:`CondSource`."""
        flow, reach = self._flow, self._flow.upsampler.reach
        self._frames = torch.cat([self._frames, frames.to(self._frames)], dim=1)
        self._count += frames.shape[1]
        last = self._count if final else self._count - reach
        pieces = []
        if last > self._done:
            lengths = None if self._lengths is None else -(-self._lengths // flow.hop_length)
            pieces = [flow.upsampler(self._frames, self._done, last, self._count if final else None, lengths)]
            keep = max(0, last - reach)
            self._frames = self._frames[:, keep - self._first :].clone()
            self._first, self._done = keep, last
        surplus = -self._count * flow.hop_length % flow.column if final else 0
        for half in range(2):
            start = first_band(flow.n_mels, half)
            bands = slice(start, start + half_bands(flow.n_mels))
            new = [piece[:, :, bands].to(flow.dtype) for piece in pieces]
            self._halves[half] = F.pad(torch.cat([self._halves[half], *new], dim=1), (0, 0, 0, surplus))

    @property
    def end(self) -> int:
        """See :class:`CondSource`."""
        return self._start + self._halves[0].shape[1]

    def rows(self, block: int, half: int, first: int, last: int) -> Tensor:
        """See :class:`CondSource`."""
        values = self._halves[half][:, (first << block) - self._start : (last << block) - self._start]
        return values.view(values.shape[0], last - first, -1)

    def drop(self, first: int) -> None:
        """See :class:`CondSource`."""
        if first > self._start:
            self._halves = [half[:, first - self._start :].clone() for half in self._halves]
            self._start = first


class BlockCondBuffer:
    """Conditioning at each block's own rate, from a :class:`~flowavenet_plugin.flow.conditioner.BlockConditioner`."""

    def __init__(self, flow: FoldedFlow, batch: int, lengths: Tensor | None) -> None:
        """Start empty; ``lengths`` are the samples of each item, shape (B,), if they differ."""
        self._net, self._hop, self._column = flow.upsampler, flow.hop_length, flow.column
        self._frames = torch.empty(batch, 0, flow.n_mels, dtype=flow.float_dtype, device=flow.device)
        self._first = 0  # frame that _frames starts with
        self._ends = None if lengths is None else -(-lengths // flow.hop_length)
        self._ready = 0  # samples whose conditioning was made
        self._start = 0  # sample that the rows start with
        sizes = zip(self._net.levels, self._net.channels, strict=True)
        self._rows = {level: self._frames.new_empty(batch, 0, size, dtype=flow.dtype) for level, size in sizes}

    @property
    def end(self) -> int:
        """See :class:`CondSource`."""
        return self._ready

    def push(self, frames: Tensor, final: bool) -> None:
        """See :class:`CondSource`."""
        self._frames = torch.cat([self._frames, frames.to(self._frames)], dim=1)
        count, reach = self._first + self._frames.shape[1], self._net.net_reach
        last = count if final else max(0, count - reach)
        ready = -(-count * self._hop // self._column) * self._column if final else max(0, last - 1) * self._hop
        if ready > self._ready:
            self._extend(last, ready)
            self._ready = ready
            # The longest column that isn't there yet begins here.
            keep = max(0, ready // self._column * self._column // self._hop - reach)
            self._frames, self._first = self._frames[:, keep - self._first :].clone(), keep

    def _extend(self, last: int, ready: int) -> None:
        """Make the rows of the samples before ``ready``, from the frames before ``last``."""
        inside = None
        if self._ends is not None:
            places = torch.arange(self._first, self._first + self._frames.shape[1], device=self._frames.device)
            inside = places < self._ends[:, None]
        for level, embedded in zip(self._net.levels, self._net.embed(self._frames, inside), strict=True):
            rows = self._rows[level]
            done = (self._start >> level) + rows.shape[1]
            whole = embedded[:, : last - self._first]
            new = self._net.between(whole, self._first, self._ends, level, done, ready >> level)
            self._rows[level] = torch.cat([rows, new.to(rows.dtype)], dim=1)

    def rows(self, block: int, half: int | None, first: int, last: int) -> Tensor:
        """See :class:`CondSource`."""
        start = self._start >> block
        return self._rows[block][:, first - start : last - start]

    def drop(self, first: int) -> None:
        """See :class:`CondSource`."""
        if first > self._start:
            for level, rows in self._rows.items():
                self._rows[level] = rows[:, (first >> level) - (self._start >> level) :].clone()
            self._start = first


def cond_buffer(flow: FoldedFlow, batch: int, lengths: Tensor | None) -> CondBuffer | BlockCondBuffer:
    """Start to make conditioning; ``lengths`` are the samples of each item, shape (B,), if they differ."""
    kind = BlockCondBuffer if isinstance(flow.upsampler, BlockConditioner) else CondBuffer
    return kind(flow, batch, lengths)
