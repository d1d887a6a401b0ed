"""Buffers of a synthesis in pieces: conditioning, noise of the splits, rows that a step waits for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.prepared.layout import first_band, half_bands
from flowavenet_plugin.kernels.scratch import Scratch

if TYPE_CHECKING:
    from flowavenet_plugin.flow.prepared.model import PreparedFlow
    from flowavenet_plugin.flow.prepared.step import PreparedStep

#: More rows than any utterance has: the end isn't known yet.
ENDLESS = 2**62


class CondBuffer:
    """Conditioning at the sampling rate, of the samples that some step still needs."""

    def __init__(self, flow: PreparedFlow, batch: int, lengths: Tensor | None) -> None:
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
        """Take frames (B, n, n_mels) and upsample what is ready."""
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
        """One beyond the last sample whose conditioning is there."""
        return self._start + self._halves[0].shape[1]

    def rows(self, block: int, half: int, first: int, last: int) -> Tensor:
        """Return the conditioning of rows from first to last of a block, shape (B, last - first, 2**block * bands)."""
        values = self._halves[half][:, (first << block) - self._start : (last << block) - self._start]
        return values.view(values.shape[0], last - first, -1)

    def drop(self, first: int) -> None:
        """Forget the samples before ``first``."""
        if first > self._start:
            self._halves = [half[:, first - self._start :].clone() for half in self._halves]
            self._start = first


class StepState:
    """A step in the middle of an utterance."""

    def __init__(self, step: PreparedStep, batch: int, lengths: Tensor | None, flow: PreparedFlow) -> None:
        """Start.

        Args:
            step: The step.
            batch: Items, B.
            lengths: Samples of both streams together of each item, if they differ, shape (B,).
            flow: The prepared flow.
        """
        self.step = step
        self.done = 0  # rows
        left = step.stack.left * step.width
        self._a = torch.zeros(batch, left, dtype=flow.float_dtype, device=flow.device)
        self._b = self._a[:, :0]
        self._lengths = lengths

    def push(self, a: Tensor, b: Tensor, size: int | None, cond: CondBuffer, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Take values of streams a and b; return those of both that are ready.

        Args:
            a: Shape (B, values).
            b: Shape (B, values).
            size: Values of both streams of the whole utterance, if these are the last.
            cond: Conditioning.
            scratch: Buffers.
        """
        step, width = self.step, self.step.width
        self._a, self._b = torch.cat([self._a, a], dim=1), torch.cat([self._b, b], dim=1)
        if size is None:
            rows = ENDLESS
            ready = self._a.shape[1] // width - step.stack.left - step.stack.right
            ready = max(
                0, min(ready, self._b.shape[1] // width, (cond.end >> step.block) - step.stack.right - self.done)
            )
        else:
            rows = -(-size // (2 * width))
            ready = rows - self.done
            whole = (ready + step.stack.left + step.stack.right) * width
            self._a = F.pad(self._a, (0, whole - self._a.shape[1]))
            self._b = F.pad(self._b, (0, ready * width - self._b.shape[1]))
        if ready == 0:
            return self._a[:, :0], self._b[:, :0]
        values = ready * width
        new = step(
            self._a,
            self._b[:, :values],
            self.done,
            rows,
            partial(cond.rows, step.block),
            self._row_mask(ready, rows),
            scratch,
        )
        self._clear(new, 1 - step.a, size)
        before = step.stack.left * width
        out = self._a[:, before : before + values]
        self._a, self._b = self._a[:, values:].clone(), self._b[:, values:].clone()
        self.done += ready
        return out, new

    @property
    def needs(self) -> int:
        """First sample whose conditioning will be read."""
        return max(0, self.done - self.step.stack.left) << self.step.block

    def _row_mask(self, ready: int, rows: int) -> Tensor | None:
        """Mark the rows of each item, as many as ``ready`` new ones can see; the lengths are never read back."""
        if self._lengths is None:
            return None
        inside = -(-self._lengths // (2 * self.step.width))
        reach = min(rows, self.done + ready + self.step.stack.right)
        return (torch.arange(reach, device=inside.device) < inside[:, None])[:, :, None].to(self.step.stack.dtype)

    def _clear(self, new: Tensor, stream: int, size: int | None) -> None:
        """Set what lies beyond the utterance's end in its last column to zero."""
        first = self.done * self.step.width
        if self._lengths is not None:
            end = (self._lengths + 1 - stream) // 2 - first
            new.mul_(torch.arange(new.shape[1], device=new.device) < end[:, None])
        elif size is not None:
            new[:, max(0, (size + 1 - stream) // 2 - first) :] = 0
