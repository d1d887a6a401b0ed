"""Gradients of a gated stack's matrices, and from these the gradients of its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.scratch import Memory, Scratch
from flowavenet_plugin.kernels.stack_parameters import SCALE_SLOPE, split_parameters
from flowavenet_plugin.kernels.stack_weights import StackWeights


@dataclass
class StackGradients:
    """As :class:`~.stack_weights.StackWeights`, without factors; lists are per layer."""

    dilated: list[DirectConvolution]
    cond_of_all: Tensor
    cond: list[Tensor]  # its parts
    bias: list[Tensor]
    taps: list[Tensor]  # of the convolution's weight
    to_residual: list[Tensor | None]
    residual_bias: list[Tensor | None]
    to_skip: list[Tensor]
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
        n, matrix, vector = len(weights.dilated), weights.matrices["skip", 0], torch.zeros_like(weights.skip_bias)
        # This one becomes the parameter's gradient, so it isn't a buffer.
        cond = scratch.memory.empty(weights.cond_of_all.shape, matrix)
        residual = [torch.empty_like(matrix) for _ in range(n - 1)] + [None]
        taps = [scratch.take(f"grad_dilated{i}", conv.weight.shape, matrix) for i, conv in enumerate(weights.dilated)]
        return cls(
            dilated=weights.dilated,
            cond_of_all=cond,
            cond=list(cond.chunk(n)),
            bias=[torch.zeros_like(bias) for bias in weights.bias],
            taps=taps,
            to_residual=residual,
            residual_bias=[None if weight is None else vector.clone() for weight in residual],
            to_skip=[torch.empty_like(matrix) for _ in range(n)],
            skip_sum_bias=vector.clone(),
            skip=torch.empty_like(matrix),
            skip_bias=vector,
        )

    def to_parameters(self, parameters: list[Tensor], memory: Memory) -> list[Tensor]:
        """Turn these into gradients of ``parameters``, as given to :meth:`StackWeights.of`, in their order.

        These are lost; those of the parameters lie in ``memory``, where they are large.
        """
        front, cond, dilated, outs, skip, (end, end_bias, scale) = split_parameters(parameters)
        grad_front = self.front.view(front.v.shape[2], -1, self.front.shape[1]).transpose(1, 2)  # (taps, out, in)
        made = [front.taps_backward(grad_front, self.front_bias, 0, memory)]
        made.append(cond.backward(self.cond_of_all, torch.cat(self.bias), len(dilated)))
        for i, (conv, out) in enumerate(zip(dilated, outs, strict=True)):
            made.append(conv.dilated_backward(self.dilated[i], self.taps[i], self.bias[i], memory))
            parts = [(self.to_residual[i], self.residual_bias[i]), (self.to_skip[i], self.skip_sum_bias)]
            weights, biases = zip(*(part for part in parts if part[0] is not None), strict=True)
            made.append(out.backward(torch.cat(weights), torch.cat(biases), 0))
        made.append(skip.backward(self.skip, self.skip_bias, 0))
        factor = torch.exp(SCALE_SLOPE * scale[0])  # (out_channels, 1)
        grad_end, grad_bias = self.end.to(end.dtype), self.end_bias.to(end.dtype)
        along = (grad_end * end[:, :, 0]).sum(dim=1) + grad_bias * end_bias
        grad_scale = SCALE_SLOPE * factor[:, 0] * along
        return [
            *(grad for grads in made for grad in grads),
            (grad_end * factor)[:, :, None],
            grad_bias * factor[:, 0],
            grad_scale[None, :, None],
        ]
