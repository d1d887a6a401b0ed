"""One step of the inverse for inference: a coupling or a split, with ActNorm folded into its arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.layout import bit_reversal
from flowavenet_plugin.flow.mixing import inverse_mixing_matrix
from flowavenet_plugin.flow.plan import AFFINE, SPLIT, Block, Step
from flowavenet_plugin.flow.prepared.cuda_stack import make_stack
from flowavenet_plugin.flow.prepared.mixing import PreparedMixing
from flowavenet_plugin.flow.prepared.stack import Cond, PreparedStack
from flowavenet_plugin.flow.transforms import FlowBlock, FlowStep, GaussianSplit
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.threads import run_pieces

#: Rows computed at once on a CPU, at most, so that hidden states stay in its caches.
CPU_ROWS = 4096
#: Fewer don't pay for a thread of their own.
MIN_CPU_ROWS = 64


class PreparedStep:
    """Changes stream b given stream a: b = (b * scale + shift) * exp(log_s) + t, with log_s and t from a.

    Streams are the even and the odd samples of what the block works on. ActNorm changes both: what it does to b is in
    scale, shift and t; what it does to a waits for the step that changes a.

    Attributes:
        a: Stream that is read, 0 or 1; the other one changes.
        block: Squeezes up to the context block: a column is ``2**block`` samples of the waveform.
        width: Samples of each stream per column.
        mixing: What both streams go through afterwards; None: nothing.
    """

    def __init__(
        self,
        stack: PreparedStack,
        a: int,
        block: int,
        affine: bool,
        scale: Tensor,
        shift: Tensor,
        mixing: PreparedMixing | None = None,
    ) -> None:
        """Keep the parts; ``scale`` and ``shift`` have the shape (width,)."""
        self.stack, self.a, self.block, self.affine = stack, a, block, affine
        self.scale, self.shift, self.mixing = scale, shift, mixing
        self.width = stack.channels

    @torch.no_grad()
    def __call__(
        self, a: Tensor, b: Tensor, first: int, rows: int, cond: Cond, mask: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Change some rows of b.

        Args:
            a: Stream a of these rows and those around, see :class:`PreparedStack`, shape (B, values).
            b: Stream b, shape (B, n * width).
            first: First row.
            rows: Rows of the utterance.
            cond: Gives the conditioning.
            mask: As in :class:`PreparedStack`.
            scratch: Buffers.

        Returns:
            The new b, shape (B, n * width).
        """
        count = b.shape[1] // self.width
        out = torch.empty(b.shape, dtype=b.dtype, device=b.device)
        step = _rows_at_once(count) if b.device.type == "cpu" else count

        def run(piece: int, own: Scratch) -> None:
            start, end = piece * step, min((piece + 1) * step, count)
            window = a[:, start * self.width : (end + self.stack.left + self.stack.right) * self.width]
            predicted = self.stack(window, first + start, first + end, rows, cond, mask, own)
            part = slice(start * self.width, end * self.width)
            value = torch.addcmul(self.shift, b[:, part].unflatten(1, (-1, self.width)), self.scale)
            if self.affine:
                log_s, t = predicted.chunk(2, dim=2)
                value = value.mul_(log_s.exp()).add_(t)
            else:
                value = value.add_(predicted)
            out[:, part] = value.flatten(1)

        run_pieces(run, -(-count // step) if count else 0, scratch, b.device)
        return out


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
        """Fold the weights.

        Args:
            plan: What the plan says.
            module: The block.
            n_mels: Mel bands.
            dtype: Precision of the WaveNets.
        """
        self.plan, pending = plan, None
        self.steps: list[PreparedStep] = []
        for step, part in reversed(list(zip(plan.steps, module.parts, strict=True))):
            if step.kind == SPLIT:
                self.steps.append(_split_step(step, part, plan.level, n_mels, dtype))
            else:
                made, pending = _coupling_step(step, part, plan.level, n_mels, dtype, pending)
                self.steps.append(made)
        self.loose, (self.scale, self.shift) = self.steps[-1].a, pending


def _split_step(step: Step, module: GaussianSplit, level: int, n_mels: int, dtype: torch.dtype) -> PreparedStep:
    weight = module.prior.end.scale
    width = weight.shape[1] // 2
    order = bit_reversal(width.bit_length() - 1).to(weight.device)
    order = torch.cat([width + order, order])  # the prior predicts mean, then log-deviation
    one, zero = torch.ones_like(weight[0, :, 0]).detach(), torch.zeros_like(weight[0, :, 0]).detach()
    stack = make_stack(module.prior, n_mels, level, step.conds or (None,), order, one, zero, dtype)
    return PreparedStep(stack, step.reads, level, True, one[:width], zero[:width])


def _coupling_step(
    step: Step, module: FlowStep, level: int, n_mels: int, dtype: torch.dtype, pending: tuple[Tensor, Tensor] | None
) -> tuple[PreparedStep, tuple[Tensor, Tensor]]:
    """Return the step, and what its ActNorm does to stream a; ``pending`` is what the step before left for b."""
    norm, net = module.actnorm, module.coupling.net
    width = norm.scale.shape[1] // 2
    order = bit_reversal(width.bit_length() - 1).to(norm.scale.device)
    factor, shift = 1 / norm.scale.detach()[0, :, 0], -norm.loc.detach()[0, :, 0]
    (factor_a, factor_b), (shift_a, shift_b) = factor.view(2, -1)[:, order], shift.view(2, -1)[:, order]
    affine, mixing = step.kind == AFFINE, None
    if step.mixing:  # ActNorm is applied with it, to both streams
        channels = torch.cat([order, width + order])
        matrix = inverse_mixing_matrix(module.mixing.factors.detach())[channels][:, channels]
        mixing = PreparedMixing(matrix, factor[channels], shift[channels])
        factor_a, factor_b = torch.ones_like(factor_a), torch.ones_like(factor_b)
        shift_a, shift_b = torch.zeros_like(shift_a), torch.zeros_like(shift_b)
    if affine:
        end_order = torch.cat([order, width + order])
        end_scale = torch.cat([torch.ones_like(factor_b), factor_b])
        end_shift = torch.cat([torch.zeros_like(shift_b), shift_b])
    else:
        end_order, end_scale, end_shift = order, -factor_b, shift_b
    stack = make_stack(net, n_mels, level, step.conds or (None,), end_order, end_scale, end_shift, dtype)
    scale, offset = (torch.ones_like(factor_b), torch.zeros_like(shift_b)) if pending is None else pending
    made = PreparedStep(stack, step.reads, level, affine, scale * factor_b, offset * factor_b, mixing)
    return made, (factor_a, shift_a)
