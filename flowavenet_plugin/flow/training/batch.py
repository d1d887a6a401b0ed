"""A batch at work on the steps of one block: its layout in rows, masks, conditioning, buffers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.flow.layout import picked_halves
from flowavenet_plugin.flow.plan import ADDITIVE, SPLIT, Step
from flowavenet_plugin.flow.transforms import shift_and_log_scale
from flowavenet_plugin.kernels import gated_stack, gated_stack_backward
from flowavenet_plugin.kernels.gated_stack import Activations, Span
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Memory, Scratch
from flowavenet_plugin.kernels.stack_gradients import StackGradients
from flowavenet_plugin.kernels.stack_shape import FRONT_KERNEL_SIZE
from flowavenet_plugin.kernels.stack_weights import StackWeights

#: The even and the odd samples, shape (rows, C / 2) each.
Halves = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Prediction:
    """What a step's WaveNet says: z = (x - shift) * exp(-log_scale) for the half that changes (None: not scaled)."""

    shift: Tensor
    log_scale: Tensor | None
    activations: Activations | None

    def tensors(self) -> list[Tensor | None]:
        """List them; :meth:`of` puts them together again."""
        return [self.shift, self.log_scale, *self.activations.tensors()]

    @classmethod
    def of(cls, tensors: list[Tensor | None]) -> Prediction:
        """Undo :meth:`tensors`."""
        return cls(tensors[0], tensors[1], Activations.of(tensors[2:]))


class Batch:
    """What all steps of a block share; samples are rows (rows, C) of :class:`~flowavenet_plugin.kernels.rows.Rows`.

    Attributes:
        grad_cond: The gradient of the conditioning (rows, D) is added to it; None: not needed.
    """

    grad_cond: Tensor | None = None

    def __init__(self, rows: Rows, cond: Tensor, mask: Tensor | None, memory: Memory) -> None:
        """Prepare; ``memory`` is for buffers and large gradients.

        ``cond`` has the shape (rows, D) and the type in which the WaveNets run. ``mask`` (B, C, T) is 1 for samples of
        the utterance and 0 for padding; None: all count.
        """
        self.rows, self.cond = rows, cond
        self.scratch = Scratch(memory)
        self.masks = None if mask is None else rows.pack(mask).chunk(2, dim=1)
        self.whole = None if mask is None else rows.pack(mask.amin(dim=1, keepdim=True)) > 0  # columns without padding

    def halves(self, x: Tensor) -> Halves:
        """Split x (B, C, T) into its halves."""
        return self.rows.pack(x).chunk(2, dim=1)

    def joined(self, halves: Halves) -> Tensor:
        """Undo :meth:`halves`."""
        return self.rows.unpack(torch.cat(halves, dim=1))

    def inside(self, values: Tensor, half: int) -> Tensor:
        """Set what isn't part of the utterance to zero."""
        return self.rows.clear(values) if self.masks is None else values * self.masks[half]

    def count(self, half: int, like: Tensor) -> Tensor:
        """Count the samples of each item and channel, shape (B, 1) or (B, C / 2)."""
        if self.masks is None:
            return like.new_full((self.rows.batch, 1), self.rows.length)
        return self.masks[half].reshape(self.rows.batch, self.rows.length + self.rows.gap, -1).sum(dim=1)

    def each_row(self, values: Tensor) -> Tensor:
        """Give each row the value (B,) of its item, shape (rows, 1)."""
        return values[:, None].expand(-1, self.rows.length + self.rows.gap).reshape(-1, 1)

    def mixed(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Multiply rows (rows, C) of columns without padding by a matrix (C, C); others stay."""
        out = exact_product(x, matrix.t())
        return out if self.whole is None else torch.where(self.whole, out, x)

    def weights(self, step: Step, parameters: list[Tensor]) -> StackWeights:
        """Compute the matrices of a step's WaveNet."""
        own = parameters[-step.stack.n_parameters :]
        return StackWeights.of(step.stack, own, self.cond.dtype, self.scratch, len(self.cond))

    def predict(self, step: Step, half: Tensor, weights: StackWeights, scratch: Scratch | None) -> Prediction:
        """Run a step's WaveNet; the activations lie in ``scratch``, or aren't kept (None)."""
        size, left = len(half), step.stack.front_left
        room = self.scratch if scratch is None else scratch
        x = room.take("input", (size + FRONT_KERNEL_SIZE - 1, half.shape[1]), self.cond[:0])
        x[:left].zero_()
        x[left : left + size].copy_(half)
        x[left + size :].zero_()
        cond, span = picked_halves(self.cond, step.conds), Span(0, size, size, -left)

        def conditioning(start: int, end: int) -> list[Tensor]:
            return [cond[start:end]]

        keep = scratch is not None
        out, activations = gated_stack.forward(weights, x, conditioning, span, self.rows, room, keep)
        return Prediction(*shift_and_log_scale(step.kind, out.to(half.dtype)), activations)

    def predict_backward(
        self, step: Step, said: Prediction, grads: tuple[Tensor, Tensor | None], weights: StackWeights
    ) -> tuple[Tensor, StackGradients]:
        """Run a step's WaveNet backwards.

        ``said`` is what :meth:`predict` returned, with activations; ``grads`` are those of its shift and log_scale.
        What is returned are the gradients of the half that was read and of the weights.
        """
        shift, log_scale = grads
        out = {ADDITIVE: [-shift], SPLIT: [shift, log_scale]}.get(step.kind, [log_scale, shift])
        grad_cond = own = self.grad_cond
        if grad_cond is not None and step.conds is not None:
            halves = grad_cond.chunk(2, dim=1)
            own = halves[step.conds[0]] if len(step.conds) == 1 else grad_cond
            own = torch.zeros_like(grad_cond) if step.conds == (1, 0) else own
        grad, cond = torch.cat(out, dim=1).to(self.cond.dtype), picked_halves(self.cond, step.conds)
        made = gated_stack_backward.backward(grad, cond, own, said.activations, weights, self.rows, self.scratch)
        if grad_cond is not None and step.conds == (1, 0):
            for half, grad in zip(reversed(halves), own.chunk(2, dim=1), strict=True):
                half.add_(grad)
        return made
