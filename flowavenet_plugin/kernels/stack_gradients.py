"""Gradients of a gated stack's matrices, and from these the gradients of its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowavenet_plugin.kernels.scratch import Memory, Scratch
from flowavenet_plugin.kernels.stack_parameters import SCALE_SLOPE, split_parameters
from flowavenet_plugin.kernels.stack_weights import StackWeights


@dataclass
class StackGradients:
    """As :class:`~.stack_weights.StackWeights`, without factors; lists are per layer.

    Attributes:
        cond: Of the conditioning's matrices in one.
        taps: Of the convolutions' weights.
        outs: Of "to_residual", which the last layer has not, and "to_skip" in one.
    """

    cond: Tensor
    bias: list[Tensor]
    taps: list[Tensor]
    outs: list[Tensor]
    residual_bias: list[Tensor]
    skip_sum_bias: Tensor
    skip: Tensor
    skip_bias: Tensor
    front: Tensor | None = None
    front_bias: Tensor | None = None
    end: Tensor | None = None
    end_bias: Tensor | None = None

    @classmethod
    def empty(cls, weights: StackWeights, scratch: Scratch) -> StackGradients:
        """Return room: matrices uninitialised, vectors zero, front and end left out."""
        n, width, matrix = len(weights.dilated), weights.width, weights.matrices["skip", 0]
        vector = torch.zeros_like(weights.skip_bias)
        return cls(
            # This one becomes the parameter's gradient, so it isn't a buffer.
            cond=scratch.memory.empty(weights.cond_of_all.shape, matrix),
            bias=[torch.zeros_like(bias) for bias in weights.bias],
            taps=[scratch.take(f"grad_dilated{i}", x.weight.shape, matrix) for i, x in enumerate(weights.dilated)],
            outs=[matrix.new_empty(width if i + 1 == n else 2 * width, width) for i in range(n)],
            residual_bias=[vector.clone() for _ in range(n - 1)] + [vector[:0]],
            skip_sum_bias=vector.clone(),
            skip=torch.empty_like(matrix),
            skip_bias=vector,
        )

    def to_parameters(self, weights: StackWeights, parameters: list[Tensor], memory: Memory) -> list[Tensor]:
        """Turn these into gradients of ``parameters``, as given to :meth:`StackWeights.of`, in their order.

        These are lost; those of the parameters lie in ``memory``, where they are large.
        """
        front, cond, dilated, outs, skip, (end, end_bias, scale) = split_parameters(parameters)
        grad_front = self.front.view(front.v.shape[2], -1, self.front.shape[1]).transpose(1, 2)  # (taps, out, in)
        made = [
            front.taps_backward(grad_front, self.front_bias, memory),
            cond.backward(self.cond, torch.cat(self.bias)),
        ]
        for i, (conv, out) in enumerate(zip(dilated, outs, strict=True)):
            made.append(conv.dilated_backward(weights.dilated[i], self.taps[i], self.bias[i], memory))
            made.append(out.backward(self.outs[i], torch.cat([self.residual_bias[i], self.skip_sum_bias])))
        made.append(skip.backward(self.skip, self.skip_bias))
        factor = torch.exp(SCALE_SLOPE * scale[0])  # (out_channels, 1)
        grad_end, grad_bias = self.end.to(end.dtype), self.end_bias.to(end.dtype)
        along = (grad_end * end[:, :, 0]).sum(dim=1) + grad_bias * end_bias
        grad_scale = SCALE_SLOPE * factor[:, 0] * along
        flat = [grad for grads in made for grad in grads]
        return [*flat, (grad_end * factor)[:, :, None], grad_bias * factor[:, 0], grad_scale[None, :, None]]
