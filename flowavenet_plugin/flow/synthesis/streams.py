"""Buffers of a synthesis in pieces: rows that a step waits for."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.synthesis.conds import CondBuffer
from flowavenet_plugin.flow.synthesis.folded_flow import FoldedFlow
from flowavenet_plugin.flow.synthesis.step import PreparedStep
from flowavenet_plugin.kernels.scratch import Scratch

#: More rows than any utterance has: the end isn't known yet.
ENDLESS = 2**62


class StepState:
    """A step in the middle of an utterance."""

    def __init__(self, step: PreparedStep, batch: int, lengths: Tensor | None, flow: FoldedFlow) -> None:
        """Start; ``lengths`` are the samples of both streams together of each item, if they differ, shape (B,)."""
        self.step, self._lengths = step, lengths
        self.done = 0  # rows
        self._a = torch.zeros(batch, step.stack.left * step.width, dtype=flow.float_dtype, device=flow.device)
        self._b = self._a[:, :0]

    def push(self, a: Tensor, b: Tensor, size: int | None, cond: CondBuffer, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Take values (B, n) of streams a and b; return those of both that are ready.

        ``size`` are the values of both streams of the whole utterance, if these are the last.
        """
        step, width = self.step, self.step.width
        self._a, self._b = torch.cat([self._a, a], dim=1), torch.cat([self._b, b], dim=1)
        if size is None:
            rows = ENDLESS
            ready = self._a.shape[1] // width - step.stack.left - step.stack.right
            ready = max(
                0, min(ready, self._b.shape[1] // width, (cond.end >> step.level) - step.stack.right - self.done)
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
        # The rows of each item; the lengths are never read back.
        ends = None if self._lengths is None else -(-self._lengths // (2 * width))
        new = step(self._a, self._b[:, :values], self.done, rows, partial(cond.rows, step.level), ends, scratch)
        self._clear(new, step.plan.changes, size)
        before = step.stack.left * width
        out = self._a[:, before : before + values]
        if step.unmixing is not None:
            out, new = step.unmixing(out, new, self._whole(ready, size))
            self._clear(out, step.plan.reads, size)
            self._clear(new, step.plan.changes, size)
        self._a, self._b = self._a[:, values:].clone(), self._b[:, values:].clone()
        self.done += ready
        return out, new

    @property
    def needs(self) -> int:
        """First sample whose conditioning will be read."""
        return max(0, self.done - self.step.stack.left) << self.step.level

    def _whole(self, ready: int, size: int | None) -> Tensor | None:
        """Tell which of the next rows hold no padding."""
        if self._lengths is None and size is None:
            return None
        ends = torch.tensor([size], device=self._a.device) if self._lengths is None else self._lengths
        rows = torch.arange(self.done + 1, self.done + ready + 1, device=ends.device)
        return (rows * 2 * self.step.width <= ends[:, None])[:, :, None]

    def _clear(self, new: Tensor, stream: int, size: int | None) -> None:
        """Set what lies beyond the utterance's end in its last column to zero."""
        first = self.done * self.step.width
        if self._lengths is not None:
            end = (self._lengths + 1 - stream) // 2 - first
            new.mul_(torch.arange(new.shape[1], device=new.device) < end[:, None])
        elif size is not None:
            new[:, max(0, (size + 1 - stream) // 2 - first) :] = 0
