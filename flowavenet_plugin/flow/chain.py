"""A chain of flow steps as one autograd function, with or without kept activations.

The steps are invertible: the backward pass rebuilds each one's input, and the activations of the one WaveNet that it
works on. What is kept is the chain's output and the conditioning that all chains share, however many steps there are.
Errors can't pile up over the model, since each chain starts from its own output. With ``keep`` the activations stay in
memory instead, and nothing but the weights is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from flowavenet_plugin.flow.arithmetic import arithmetic, wavenet_dtype
from flowavenet_plugin.flow.step_passes import SPLIT, Prediction, Step, Work, step_backward, step_forward
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Memory, Scratch


@dataclass(frozen=True)
class Chain:
    """Steps at one rate, and how they read the conditioning.

    Attributes:
        steps: In forward order.
        reach: Columns that a convolution in them reaches to one side, at most.
        order: Place of each squeezed conditioning channel among the values of as many columns of the shared
            conditioning as one column here holds, shape (D,); None: it is squeezed already.
        keep: Keep activations for the backward pass.
        memory: For all that is large and as large in each training step.
    """

    steps: Sequence[Step]
    reach: int
    order: Tensor | None
    keep: bool
    memory: Memory

    def rows(self, x: Tensor, mask: Tensor | None) -> Rows:
        """Lay out x (B, C, T)."""
        return Rows.of(x, self.reach, mask)

    def squeezed(self, cond: Tensor, columns: int) -> Tensor:
        """Turn the shared conditioning into (B, D, columns)."""
        return squeezed(cond, self.order, columns)

    def shared(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """Undo :meth:`squeezed`."""
        grad = grad.transpose(1, 2)
        return (grad if self.order is None else _gather(grad, torch.argsort(self.order))).reshape(shape)

    def own(self, parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """Hand the steps their parameters."""
        sizes = [step.n_parameters for step in self.steps]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [list(parameters[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def squeezed(cond: Tensor, order: Tensor | None, columns: int) -> Tensor:
    """Turn the shared conditioning (B, T * n, D / n) into (B, D, columns); ``order`` as in :class:`Chain`."""
    cond = cond.reshape(cond.shape[0], columns, -1)
    return (cond if order is None else _gather(cond, order)).transpose(1, 2)


def _gather(values: Tensor, places: Tensor) -> Tensor:
    """Pick from the last dimension; on a CPU several times faster than index_select."""
    return values.gather(2, places.expand_as(values))


@torch.compiler.disable
def run_chain(
    chain: Chain, x: Tensor, cond: Tensor, mask: Tensor | None, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Run a chain forward.

    Args:
        chain: The steps.
        x: Shape (B, C, T).
        cond: Shared conditioning, shape (B, T * n, D / n).
        mask: 1 for samples of the utterance and 0 for padding, shape of x; None: all count.
        parameters: Of all steps, in their order.

    Returns:
        z, shape of x, and log|det dz/dx| per item in nats, shape (B,).
    """
    return _ChainFunction.apply(chain, x, cond, mask, *parameters)


class _ChainFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, chain: Chain, x: Tensor, cond: Tensor, mask: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        chain.memory.turn()
        dtype = wavenet_dtype(x)
        kept: list[Tensor | None] = []
        with arithmetic(x.device):
            rows = chain.rows(x, mask)
            work = Work(rows, rows.pack(chain.squeezed(cond, x.shape[2]).to(dtype)), mask, chain.memory)
            halves, side = rows.pack(x).chunk(2, dim=1), 0
            logdet = x.new_zeros(x.shape[0])
            for step, own in zip(chain.steps, chain.own(parameters), strict=True):
                scratch = Scratch(chain.memory) if chain.keep else None
                halves, step_logdet, said = step_forward(work, step, own, halves, side, scratch)
                logdet = logdet + step_logdet
                kept += said.tensors() if chain.keep else []
                side = side if step.kind == SPLIT else 1 - side
            z = rows.unpack(torch.cat(halves, dim=1)).contiguous()
        ctx.chain, ctx.dtype, ctx.n_kept = chain, dtype, len(kept)
        ctx.save_for_backward(z, cond, mask, *kept, *parameters)
        return z, logdet

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_z: Tensor, grad_logdet: Tensor) -> tuple[Tensor | None, ...]:
        chain = ctx.chain
        z, cond, mask, *rest = ctx.saved_tensors
        kept, parameters = list(rest[: ctx.n_kept]), rest[ctx.n_kept :]
        with arithmetic(z.device):
            rows = chain.rows(z, mask)
            work = Work(rows, rows.pack(chain.squeezed(cond, z.shape[2]).to(ctx.dtype)), mask, chain.memory)
            grad_cond = torch.zeros_like(work.cond, dtype=z.dtype) if ctx.needs_input_grad[2] else None
            side = sum(step.kind != SPLIT for step in chain.steps) % 2
            halves, grads = (rows.pack(v).chunk(2, dim=1) for v in (z, grad_z))
            grads = tuple(work.inside(grad, k ^ side) for k, grad in enumerate(grads))
            made: list[Tensor] = []
            n_kept = len(kept) // len(chain.steps)  # of one step: all WaveNets of a chain have as many layers
            for step, own in zip(reversed(chain.steps), reversed(chain.own(parameters)), strict=True):
                side = side if step.kind == SPLIT else 1 - side
                said = Prediction.of([kept.pop() for _ in range(n_kept)][::-1]) if kept else None
                halves, grads, step_grads = step_backward(
                    work, step, own, halves, grads, grad_logdet, side, said, grad_cond
                )
                made = step_grads + made
            grad_x = rows.unpack(torch.cat(grads, dim=1))
            shared = None if grad_cond is None else chain.shared(rows.unpack(grad_cond), cond.shape).to(cond.dtype)
        return None, grad_x, shared, None, *made
