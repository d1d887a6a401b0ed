"""A block's steps as one autograd function in each direction, with or without kept activations.

The steps are invertible: the backward pass rebuilds each one's input, and the activations of the one WaveNet that it
works on. What is kept is the chain's result and the conditioning that all blocks share, however many steps there are.
Errors can't pile up over the model, since each chain starts from its own result. With ``keep`` the activations stay in
memory instead, and nothing but the weights is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from flowavenet_plugin.flow.arithmetic import arithmetic, wavenet_dtype
from flowavenet_plugin.flow.layout import gather_channels, squeezed_cond
from flowavenet_plugin.flow.plan import Block
from flowavenet_plugin.flow.training.batch import Batch, Prediction
from flowavenet_plugin.flow.training.steps import StepPass
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Memory, Scratch


@dataclass(frozen=True)
class Chain:
    """The steps of a block in one direction, and how they read the conditioning.

    Attributes:
        block: The steps.
        order: As of :func:`~flowavenet_plugin.flow.layout.squeezed_cond`.
        keep: Keep activations for the backward pass.
        memory: For all that is large and as large in each training step.
        inverse: Undo the steps, from the last to the first.
    """

    block: Block
    order: Tensor | None
    keep: bool
    memory: Memory
    inverse: bool

    @torch.compiler.disable
    def __call__(
        self, x: Tensor, cond: Tensor, mask: Tensor | None, parameters: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Run the steps.

        Args:
            x: Shape (B, C, T).
            cond: Conditioning, perhaps shared by blocks, shape (B, T * n, D / n).
            mask: 1 for samples of the utterance and 0 for padding, where x is zero, shape of x; None: all count.
            parameters: Of all steps, in their order.

        Returns:
            z, shape of x, and log|det dz/dx| per item in nats, shape (B,), or None of the inverse.
        """
        return ChainFunction.apply(self, x, cond, mask, *parameters)

    def batch(self, x: Tensor, cond: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Batch:
        """Lay out a batch."""
        rows = Rows.of(x, self.block.reach, mask)
        return Batch(rows, rows.pack(squeezed_cond(cond, self.order, x.shape[2]).to(dtype)), mask, self.memory)

    def steps(self, batch: Batch, parameters: Sequence[Tensor]) -> list[StepPass]:
        """List the steps as they are run."""
        rest = iter(parameters)
        counted = [(step, [next(rest) for _ in range(step.n_parameters)]) for step in self.block.steps]
        found = [StepPass(batch, step, own, self.inverse) for step, own in counted]
        return found[::-1] if self.inverse else found


class ChainFunction(torch.autograd.Function):
    """A :class:`Chain` and its backward pass."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, chain: Chain, x: Tensor, cond: Tensor, mask: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Chain.__call__`."""
        chain.memory.turn()
        dtype, kept = wavenet_dtype(x), []
        logdet = None if chain.inverse else x.new_zeros(x.shape[0])
        with arithmetic(x.device):
            batch = chain.batch(x, cond, mask, dtype)
            halves = batch.halves(x)
            for step in chain.steps(batch, parameters):
                halves, step_logdet, said = step.run(halves, Scratch(chain.memory) if chain.keep else None)
                logdet = None if chain.inverse else logdet + step_logdet
                kept += [said.tensors()] if chain.keep else []
            z = batch.joined(halves).contiguous()
        ctx.chain, ctx.dtype, ctx.counts = chain, dtype, [len(tensors) for tensors in kept]
        ctx.save_for_backward(z, cond, mask, *parameters, *(each for tensors in kept for each in tensors))
        return z, logdet

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor, grad_logdet: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the steps backwards; return the gradients of :meth:`forward`'s arguments."""
        chain, counts = ctx.chain, list(ctx.counts)
        z, cond, mask, *rest = ctx.saved_tensors
        parameters, kept = rest[: len(rest) - sum(counts)], rest[len(rest) - sum(counts) :]
        with arithmetic(z.device):
            batch = chain.batch(z, cond, mask, ctx.dtype)
            batch.grad_cond = torch.zeros_like(batch.cond, dtype=z.dtype) if ctx.needs_input_grad[2] else None
            halves = batch.halves(z)
            grads = tuple(batch.inside(part, half) for half, part in enumerate(batch.halves(grad)))
            made: list[list[Tensor]] = []
            for step in reversed(chain.steps(batch, parameters)):
                said = Prediction.of([kept.pop() for _ in range(counts.pop())][::-1]) if counts else None
                halves, grads, own_grads = step.backward(halves, grads, grad_logdet, said)
                made.append(own_grads)
            flat = (each for own_grads in (made if chain.inverse else reversed(made)) for each in own_grads)
            return None, batch.joined(grads), _shared(chain, batch, cond), None, *flat


def _shared(chain: Chain, batch: Batch, like: Tensor) -> Tensor | None:
    """Return the gradient of the conditioning as it was given, shape and type of ``like``."""
    if batch.grad_cond is None:
        return None
    grad = batch.rows.unpack(batch.grad_cond).transpose(1, 2)
    grad = grad if chain.order is None else gather_channels(grad, torch.argsort(chain.order))
    return grad.reshape(like.shape).to(like.dtype)
