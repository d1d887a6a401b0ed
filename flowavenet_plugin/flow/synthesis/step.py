"""One step of the inverse for inference: a coupling or a split, with ActNorm folded into its arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.flow.layout import bit_reversal
from flowavenet_plugin.flow.mixing import inverse_mixing_matrix
from flowavenet_plugin.flow.plan import ADDITIVE, SPLIT, Block, Step
from flowavenet_plugin.flow.synthesis.stack import Cond, FoldedStack
from flowavenet_plugin.flow.transforms import FlowBlock, FlowStep, GaussianSplit
from flowavenet_plugin.kernels.rows import Marked
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.threads import run_pieces

#: Rows computed at once on a CPU, at most, so that hidden states stay in its caches.
CPU_ROWS = 4096
#: Fewer don't pay for a thread of their own.
MIN_CPU_ROWS = 64


class Unmixing:
    """Undo mixing and ActNorm: columns y become matrix y * factor + shift, those with padding y * factor + shift."""

    def __init__(self, matrix: Tensor, factor: Tensor, shift: Tensor) -> None:
        """Fold the weights, for the first stream's samples of a column in their order of time, then the second's.

        ``matrix``, float64, (C, C), is the inverse of what mixed the channels; the rest ActNorm's inverse, (C,) each.
        """
        self.weight, self.factor, self.shift = (matrix.t() * factor).contiguous(), factor, shift

    def __call__(self, a: Tensor, b: Tensor, whole: Tensor | None) -> tuple[Tensor, Tensor]:
        """Change both streams.

        Args:
            a: Values of the stream that was read, shape (B, rows * C / 2).
            b: Of the one that was changed, the same shape.
            whole: Which rows hold no padding, bool, shape (B or 1, rows, 1); None: all.
        """
        width = self.factor.shape[0] // 2
        y = torch.cat([a.unflatten(1, (-1, width)), b.unflatten(1, (-1, width))], dim=2)
        x = exact_product(y, self.weight)
        x = x if whole is None else torch.where(whole, x, y * self.factor)
        x = x.add_(self.shift)
        return x[:, :, :width].flatten(1), x[:, :, width:].flatten(1)


class PreparedStep:
    """Changes stream b given stream a: b = (b * scale + shift) * exp(log_s) + t, with log_s and t from a.

    Streams are the even and the odd samples of what the block works on. ActNorm changes both: what it does to b is in
    scale, shift and t; what it does to a waits for the step that changes a.

    Attributes:
        plan: What the plan says of it.
        level: Of the block: a column is ``2**level`` samples of the waveform.
        width: Samples of each stream per column.
        unmixing: What both streams go through afterwards; None: nothing.
    """

    def __init__(
        self,
        plan: Step,
        level: int,
        stack: FoldedStack,
        scale: Tensor,
        shift: Tensor,
        unmixing: Unmixing | None = None,
    ) -> None:
        """Keep the parts; ``scale`` and ``shift`` have the shape (width,)."""
        self.plan, self.level, self.stack = plan, level, stack
        self.scale, self.shift, self.unmixing = scale, shift, unmixing
        self.width = stack.channels

    @torch.no_grad()
    def __call__(
        self, a: Tensor, b: Tensor, first: int, rows: int, cond: Cond, ends: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Return the new b of some rows.

        Args:
            a: Stream a of these rows and of the stack's ``left`` before and ``right`` after them, shape (B, values).
            b: Stream b, shape (B, n * width), as what is returned.
            first: First row.
            rows: Rows of the utterance, or more if the end isn't known yet.
            cond: Gives the conditioning.
            ends: Rows of each item, shape (B,); None: all end at ``rows``.
            scratch: Buffers.
        """
        count, batch = b.shape[1] // self.width, len(b)
        out, stack = torch.empty(b.shape, dtype=b.dtype, device=b.device), self.stack
        if b.device.type != "cpu" and batch > 1:
            window = a[:, : (count + stack.left + stack.right) * self.width]
            said = stack.predict_batch(window, first, first + count, rows, cond, ends, scratch)
            return out.copy_(self._changed(b.unflatten(1, (-1, self.width)), said).flatten(1))
        size = _rows_at_once(count) if b.device.type == "cpu" else count
        low = max(0, first - stack.left)
        places = None if ends is None else torch.arange(low, first + count + stack.right, device=b.device)
        marks = None if ends is None else (places < ends[:, None])[:, :, None].to(stack.dtype)

        def run(piece: int, own: Scratch) -> None:
            item, start = piece % batch, piece // batch * size
            end = min(start + size, count)
            window = a[item, start * self.width : (end + stack.left + stack.right) * self.width]
            inside = Marked(None if marks is None else marks[item], low)
            said = stack.predict(window, first + start, first + end, rows, cond, item, inside, own)
            part = slice(start * self.width, end * self.width)
            out[item, part] = self._changed(b[item, part].view(-1, self.width), said).flatten()

        run_pieces(run, batch * -(-count // size) if count else 0, scratch, b.device)
        return out

    def _changed(self, b: Tensor, said: Tensor) -> Tensor:
        """Return the new values of b (..., width)."""
        value = torch.addcmul(self.shift, b, self.scale)
        if self.plan.kind == ADDITIVE:
            return value.add_(said)
        log_s, t = said.chunk(2, dim=-1)
        return value.mul_(log_s.exp()).add_(t)


def _rows_at_once(count: int) -> int:
    """Return the rows of a piece on a CPU: as many pieces fall to each thread."""
    threads = torch.get_num_threads()
    pieces = threads * -(-count // (threads * CPU_ROWS))
    return max(-(-count // max(pieces, 1)), MIN_CPU_ROWS)


class PreparedBlock:
    """The steps of a context block in the order of the inverse.

    Attributes:
        steps: The steps; of a block with a split, the first is the split's.
        loose: Stream whose last ActNorm no step has applied yet.
        scale: That ActNorm, x * scale + shift, shape (width,).
        shift: See above.
        plan: What the plan says of it.
    """

    def __init__(self, plan: Block, module: FlowBlock, n_mels: int, dtype: torch.dtype) -> None:
        """Fold the weights; ``dtype`` is the precision of the WaveNets."""
        self.plan, pending = plan, None
        self.steps: list[PreparedStep] = []
        for step, part in reversed(list(zip(plan.steps, module.parts, strict=True))):
            made, pending = _prepared_step(step, part, plan.level, n_mels, dtype, pending)
            self.steps.append(made)
        self.loose, (self.scale, self.shift) = self.steps[-1].plan.reads, pending


def _prepared_step(
    step: Step,
    module: FlowStep | GaussianSplit,
    level: int,
    n_mels: int,
    dtype: torch.dtype,
    pending: tuple[Tensor, Tensor] | None,
) -> tuple[PreparedStep, tuple[Tensor, Tensor]]:
    """Return the step, and what its ActNorm does to stream a; ``pending`` is what the step before left for b."""
    net = (module if step.kind == SPLIT else module.coupling).wavenet
    width = net.front.conv.weight.shape[1]
    one, zero = net.end.scale.detach().new_ones(width), net.end.scale.detach().new_zeros(width)
    order, unmixing = bit_reversal(width.bit_length() - 1).to(one.device), None
    (factor_a, factor_b), (shift_a, shift_b) = (one, one), (zero, zero)
    if step.kind != SPLIT:
        factor, shift = 1 / module.actnorm.scale.detach()[0, :, 0], -module.actnorm.loc.detach()[0, :, 0]
        if step.mixing:  # ActNorm is applied with it, to both streams
            channels = torch.cat([order, width + order])
            matrix = inverse_mixing_matrix(module.mixing.factors.detach())[channels][:, channels]
            unmixing = Unmixing(matrix, factor[channels], shift[channels])
        else:
            (factor_a, factor_b), (shift_a, shift_b) = factor.view(2, -1)[:, order], shift.view(2, -1)[:, order]
    end = order, -factor_b, shift_b
    if step.kind != ADDITIVE:  # log_s, then t; a prior predicts the mean first
        first, second = (width + order, order) if step.kind == SPLIT else (order, width + order)
        end = torch.cat([first, second]), torch.cat([one, factor_b]), torch.cat([zero, shift_b])
    scale, offset = (one, zero) if pending is None else pending
    stack = FoldedStack(step, net, n_mels, level, end, dtype)
    return PreparedStep(step, level, stack, scale * factor_b, offset * factor_b, unmixing), (factor_a, shift_a)
