"""A block's steps as one autograd function in each direction, with or without kept activations.

The steps are invertible: the backward pass rebuilds each one's input, and the activations of the one WaveNet that it
works on. What is kept is the chain's result and the conditioning that all blocks share, however many steps there are.
Errors can't pile up over the model, since each chain starts from its own result. With ``keep`` the activations stay in
memory instead, and nothing but the weights is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from flowavenet_plugin.flow.arithmetic import arithmetic, wavenet_dtype
from flowavenet_plugin.flow.layout import gather_channels, squeezed_cond
from flowavenet_plugin.flow.plan import Block, Step
from flowavenet_plugin.flow.training.batch import Batch, Halves, Prediction
from flowavenet_plugin.flow.training.steps import forward_backward, inverse_backward, step_forward, step_inverse
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Memory, Scratch

#: A step's input, its gradients, and those of its parameters.
Undone = tuple[Halves, Halves, list[Tensor]]


@dataclass(frozen=True)
class Chain:
    """The steps of a block, and how they read the conditioning.

    Attributes:
        block: The steps.
        order: As of :func:`~flowavenet_plugin.flow.layout.squeezed_cond`.
        keep: Keep activations for the backward pass.
        memory: For all that is large and as large in each training step.
    """

    block: Block
    order: Tensor | None
    keep: bool
    memory: Memory

    @torch.compiler.disable
    def forward(
        self, x: Tensor, cond: Tensor, mask: Tensor | None, parameters: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Run the steps.

        Args:
            x: Shape (B, C, T).
            cond: Conditioning, perhaps shared by blocks, shape (B, T * n, D / n).
            mask: 1 for samples of the utterance and 0 for padding, where x is zero, shape of x; None: all count.
            parameters: Of all steps, in their order.

        Returns:
            z, shape of x, and log|det dz/dx| per item in nats, shape (B,).
        """
        return ForwardChain.apply(self, x, cond, mask, *parameters)

    @torch.compiler.disable
    def inverse(self, z: Tensor, cond: Tensor, mask: Tensor | None, parameters: Sequence[Tensor]) -> Tensor:
        """Undo :meth:`forward`; arguments as there."""
        return InverseChain.apply(self, z, cond, mask, *parameters)

    def batch(self, x: Tensor, cond: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Batch:
        """Lay out a batch."""
        rows = Rows.of(x, self.block.reach, mask)
        return Batch(rows, rows.pack(squeezed_cond(cond, self.order, x.shape[2]).to(dtype)), mask, self.memory)

    def scratch(self) -> Scratch | None:
        """Return buffers for the activations of a step, if they are kept."""
        return Scratch(self.memory) if self.keep else None

    def cond_gradient(self, batch: Batch, grad: Tensor, like: Tensor) -> Tensor:
        """Turn the gradient (rows, D) into that of the conditioning as it was given, shape and type of ``like``."""
        grad = batch.rows.unpack(grad).transpose(1, 2)
        grad = grad if self.order is None else gather_channels(grad, torch.argsort(self.order))
        return grad.reshape(like.shape).to(like.dtype)

    def with_parameters(self, parameters: Sequence[Tensor]) -> list[tuple[Step, list[Tensor]]]:
        """Hand the steps their parameters."""
        rest = iter(parameters)
        return [(step, [next(rest) for _ in range(step.n_parameters)]) for step in self.block.steps]


class ForwardChain(torch.autograd.Function):
    """:meth:`Chain.forward` and its backward pass."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, chain: Chain, x: Tensor, cond: Tensor, mask: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Chain.forward`."""
        chain.memory.turn()
        dtype, kept = wavenet_dtype(x), []
        with arithmetic(x.device):
            batch = chain.batch(x, cond, mask, dtype)
            halves, logdet = batch.halves(x), x.new_zeros(x.shape[0])
            for step, own in chain.with_parameters(parameters):
                halves, step_logdet, said = step_forward(batch, step, own, halves, chain.scratch())
                logdet = logdet + step_logdet
                kept += [said] if chain.keep else []
            z = batch.joined(halves).contiguous()
        _save(ctx, chain, dtype, kept, z, cond, mask, parameters)
        return z, logdet

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_z: Tensor, grad_logdet: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of :meth:`forward`'s arguments."""

        def undo(batch: Batch, step: Step, own: list[Tensor], halves: Halves, grads: Halves, *rest: object) -> Undone:
            return forward_backward(batch, step, own, halves, grads, grad_logdet, *rest)

        return _backward(ctx, grad_z, undo, back=True)


class InverseChain(torch.autograd.Function):
    """:meth:`Chain.inverse` and its backward pass."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, chain: Chain, z: Tensor, cond: Tensor, mask: Tensor | None, *parameters: Tensor
    ) -> Tensor:
        """See :meth:`Chain.inverse`."""
        chain.memory.turn()
        dtype, kept = wavenet_dtype(z), []
        with arithmetic(z.device):
            batch = chain.batch(z, cond, mask, dtype)
            halves = batch.halves(z)
            for step, own in reversed(chain.with_parameters(parameters)):
                halves, said = step_inverse(batch, step, own, halves, chain.scratch())
                kept += [said] if chain.keep else []
            x = batch.joined(halves).contiguous()
        _save(ctx, chain, dtype, kept, x, cond, mask, parameters)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_x: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of :meth:`forward`'s arguments."""
        return _backward(ctx, grad_x, inverse_backward, back=False)


def _save(
    ctx: FunctionCtx,
    chain: Chain,
    dtype: torch.dtype,
    kept: list[Prediction],
    result: Tensor,
    cond: Tensor,
    mask: Tensor | None,
    parameters: Sequence[Tensor],
) -> None:
    """Save for the backward pass what it reads; ``kept`` in the order in which it was computed."""
    tensors = [said.tensors() for said in kept]
    ctx.chain, ctx.dtype, ctx.counts = chain, dtype, [len(each) for each in tensors]
    ctx.save_for_backward(result, cond, mask, *(tensor for each in tensors for tensor in each), *parameters)


def _backward(ctx: FunctionCtx, grad: Tensor, undo: Callable[..., Undone], back: bool) -> tuple[Tensor | None, ...]:
    """Run the steps backwards: from the last to the first with ``back``, else from the first to the last."""
    chain, total = ctx.chain, sum(ctx.counts)
    result, cond, mask, *rest = ctx.saved_tensors
    kept, parameters = rest[:total], rest[total:]
    counts = list(ctx.counts)
    with arithmetic(result.device):
        batch = chain.batch(result, cond, mask, ctx.dtype)
        grad_cond = torch.zeros_like(batch.cond, dtype=result.dtype) if ctx.needs_input_grad[2] else None
        halves = batch.halves(result)
        grads = tuple(batch.inside(part, half) for half, part in enumerate(batch.halves(grad)))
        made: list[list[Tensor]] = []
        for step, own in chain.with_parameters(parameters)[:: -1 if back else 1]:
            said = Prediction.of([kept.pop() for _ in range(counts.pop())][::-1]) if counts else None
            halves, grads, step_grads = undo(batch, step, own, halves, grads, said, grad_cond)
            made.append(step_grads)
        shared = None if grad_cond is None else chain.cond_gradient(batch, grad_cond, cond)
        flat = (each for step_grads in made[:: -1 if back else 1] for each in step_grads)
        return None, batch.joined(grads), shared, None, *flat
