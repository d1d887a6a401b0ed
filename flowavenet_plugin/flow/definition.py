"""The network by its plain modules, step by step along the plan: what all other ways to compute it must agree with.

Autograd differentiates it, and what traces models for export can follow it. It also starts ActNorm.
"""

from __future__ import annotations

from torch import Tensor

from flowavenet_plugin.flow.layout import half_first, picked_halves, squeezed_cond
from flowavenet_plugin.flow.plan import Block, Step
from flowavenet_plugin.flow.transforms import FlowBlock
from flowavenet_plugin.flow.walk import BlockCond


def block_forward(
    block: Block, module: FlowBlock, x: Tensor, cond: BlockCond, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run a block's modules on x (B, C, T); return z and log|det dz/dx|."""
    logdet, squeezed = x.new_zeros(x.shape[0]), squeezed_cond(*cond, x.shape[2])
    for step, part in zip(block.steps, module.parts, strict=True):
        z, step_logdet = part(half_first(x, step.reads), picked_halves(squeezed, step.conds), _mask(step, mask))
        x, logdet = half_first(z, step.reads), logdet + step_logdet
    return x, logdet


def block_inverse(block: Block, module: FlowBlock, z: Tensor, cond: BlockCond, mask: Tensor | None) -> Tensor:
    """Undo :func:`block_forward`."""
    squeezed = squeezed_cond(*cond, z.shape[2])
    for step, part in reversed(list(zip(block.steps, module.parts, strict=True))):
        x = part.inverse(half_first(z, step.reads), picked_halves(squeezed, step.conds), _mask(step, mask))
        z = half_first(x, step.reads)
    return z


def _mask(step: Step, mask: Tensor | None) -> Tensor | None:
    return None if mask is None else half_first(mask, step.reads)
