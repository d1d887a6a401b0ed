"""The inverse in pieces: frames and noise go in as they come, audio goes out once nothing to come can change it.

Each step waits for the rows behind that its WaveNet sees, keeps those before, and hands on the rest. So the deep
blocks, which see far, do so at their low rate, and nothing is computed twice but a few hidden states at the seams.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic, usable
from flowavenet_plugin.flow.synthesis.conds import CondBuffer, cond_buffer
from flowavenet_plugin.flow.synthesis.folded_flow import FoldedFlow
from flowavenet_plugin.flow.synthesis.step import PreparedBlock
from flowavenet_plugin.flow.synthesis.streams import StepState
from flowavenet_plugin.kernels.scratch import Scratch


class InverseSession:
    """State of one synthesis, or of a batch that goes in step."""

    def __init__(self, flow: FoldedFlow, batch: int = 1, lengths: Tensor | None = None) -> None:
        """Start with B = ``batch`` items side by side; ``lengths`` are the samples of each, (B,), if they differ."""
        self._cond = cond_buffer(flow, batch, lengths)
        self._scratch = Scratch()
        self._dtype, self.device = flow.float_dtype, flow.device
        self._lengths = lengths
        self._samples = 0
        self._blocks: list[_BlockState] = []
        for block in flow.blocks:
            self._blocks.insert(0, _BlockState(block, batch, lengths, flow))
            if block.plan.kept is not None:
                lengths = None if lengths is None else _stream_size(lengths, block.plan.kept)
        self._kept = [block.plan.kept for block in flow.blocks if block.plan.kept is not None]

    @own_arithmetic
    @torch.no_grad()
    def push(self, noise: Tensor, cond: Tensor, final: bool = False) -> Tensor:
        """Take some frames more.

        Args:
            noise: Their noise, shape (B, frames * hop_length).
            cond: Their conditioning, shape (B, frames, n_mels).
            final: Whether they are the last.

        Returns:
            The audio that is ready, from where the last call stopped, shape (B, samples); after the last frames all
            that is missing.
        """
        noise, cond, start = usable(noise.to(self._dtype)), usable(cond), self._samples
        self._samples += noise.shape[1]
        if self._lengths is not None:
            places = torch.arange(start, self._samples, device=noise.device)
            noise = noise * (places < self._lengths[:, None])
        self._cond.push(cond, final)
        sizes, leaves = [self._samples], []
        for kept in self._kept:
            pair = _deal(noise, start)
            noise, start = pair[kept], _stream_size(start, kept)
            leaves.append(pair[1 - kept])
            sizes.append(_stream_size(sizes[-1], kept))
        pair = _deal(noise, start)
        for state in self._blocks:
            if state.block.plan.kept is not None:
                kept, leaf = _merge(*pair), leaves.pop()
                pair = (kept, leaf) if state.block.plan.kept == 0 else (leaf, kept)
            pair = state.push(pair, sizes[state.block.plan.splits] if final else None, self._cond, self._scratch)
        self._cond.drop(min(step.needs for state in self._blocks for step in state.steps))
        return _merge(*pair)


class _BlockState:
    """A block in the middle of an utterance."""

    def __init__(self, block: PreparedBlock, batch: int, lengths: Tensor | None, flow: FoldedFlow) -> None:
        self.block = block
        self.steps = [StepState(step, batch, lengths, flow) for step in block.steps]
        self._lengths = lengths
        self._done = 0  # values of each stream

    def push(
        self, pair: tuple[Tensor, Tensor], size: int | None, cond: CondBuffer, scratch: Scratch
    ) -> tuple[Tensor, Tensor]:
        """Take values of the even and the odd stream, and return those that are ready."""
        for state in self.steps:
            a, b = state.push(pair[state.step.plan.reads], pair[state.step.plan.changes], size, cond, scratch)
            pair = (a, b) if state.step.plan.reads == 0 else (b, a)
        return self._finish(list(pair), size)

    def _finish(self, pair: list[Tensor], size: int | None) -> tuple[Tensor, Tensor]:
        """Apply the last ActNorm to the stream that no step changed since, and cut what lies beyond the end."""
        loose = self.block.loose
        rows = pair[loose].unflatten(1, (-1, self.block.steps[0].width))
        pair[loose] = torch.addcmul(self.block.shift, rows, self.block.scale).flatten(1)
        if self._lengths is not None:
            places = torch.arange(self._done, self._done + pair[loose].shape[1], device=self._lengths.device)
            pair[loose].mul_(places < _stream_size(self._lengths, loose)[:, None])
        done, self._done = self._done, self._done + pair[0].shape[1]
        if size is None:
            return pair[0], pair[1]
        return pair[0][:, : _stream_size(size, 0) - done], pair[1][:, : _stream_size(size, 1) - done]


def _stream_size(size: int | Tensor, stream: int) -> int | Tensor:
    """Count the even (stream 0) or odd (1) places among the first ``size``."""
    return (size + 1 - stream) // 2


def _deal(x: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Split values (B, n) that begin at place ``start`` into those at even and at odd places."""
    return x[:, start % 2 :: 2], x[:, 1 - start % 2 :: 2]


def _merge(even: Tensor, odd: Tensor) -> Tensor:
    """Undo :func:`_deal` for values that begin at an even place."""
    out = even.new_empty(even.shape[0], even.shape[1] + odd.shape[1])
    out[:, 0::2], out[:, 1::2] = even, odd
    return out
