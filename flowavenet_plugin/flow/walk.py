"""The way through the blocks in both directions: squeezes, what leaves at splits, masks. Who runs a block is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from flowavenet_plugin.flow.layout import from_halves, squeeze, unsqueeze
from flowavenet_plugin.flow.plan import Block

#: A block's conditioning, and its order, as in :func:`~flowavenet_plugin.flow.layout.squeezed_cond`.
BlockCond = tuple[Tensor, Tensor | None]
#: Index of a block, x (B, C, T), conditioning and mask to z and log-determinant, or back from z.
RunForward = Callable[[int, Tensor, BlockCond, Tensor | None], tuple[Tensor, Tensor]]
RunInverse = Callable[[int, Tensor, BlockCond, Tensor | None], Tensor]


def as_blocks_see(plan: Sequence[Block], x: Tensor | None) -> list[Tensor | None]:
    """Squeeze and split (B, 1, T) as the flow does, without changing a value: of each block, (B, C, columns)."""
    seen: list[Tensor | None] = []
    for block in plan:
        seen.append(None if x is None else squeeze(x, block.squeezes))
        x = seen[-1] if block.kept is None or x is None else seen[-1].chunk(2, dim=1)[block.kept]
    return seen


def run_forward(
    plan: Sequence[Block], run: RunForward, x: Tensor, conds: Sequence[BlockCond], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Map audio to noise, block by block.

    Args:
        plan: The blocks.
        run: Runs one.
        x: Waveform in whole columns of the last block, shape (B, 1, T).
        conds: Conditioning of each block.
        mask: 1 for samples that count and 0 for padding, shape of x; None: all count.

    Returns:
        Noise, shape of x, each value where the sample was that it came from, and log-determinants, shape (B,).
    """
    logdet, leaves = x.new_zeros(x.shape[0]), []
    for i, (block, own_mask) in enumerate(zip(plan, as_blocks_see(plan, mask), strict=True)):
        x, block_logdet = run(i, squeeze(x, block.squeezes), conds[i], own_mask)
        logdet = logdet + block_logdet
        if block.kept is not None:
            halves = x.chunk(2, dim=1)
            x = halves[block.kept]
            leaves.append(halves[1 - block.kept])
    for block in reversed(plan):
        x = x if block.kept is None else from_halves(x, leaves.pop(), block.kept)
        x = unsqueeze(x, block.squeezes)
    return x, logdet


def run_inverse(
    plan: Sequence[Block], run: RunInverse, noise: Tensor, conds: Sequence[BlockCond], mask: Tensor | None
) -> Tensor:
    """Undo :func:`run_forward`; arguments as there."""
    seen, masks = as_blocks_see(plan, noise), as_blocks_see(plan, mask)
    x = seen[-1]
    for i, block in reversed(list(enumerate(plan))):
        if block.kept is not None:
            x = from_halves(x, seen[i].chunk(2, dim=1)[1 - block.kept], block.kept)
        x = unsqueeze(run(i, x, conds[i], masks[i]), block.squeezes)
    return x
