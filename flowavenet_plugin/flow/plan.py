"""The network as a list of steps in which all is settled: who reads, who changes, conditioning, splits and rates.

A block squeezes its input: two columns become one with twice the channels. The halves of the channels hold the samples
at even places (half 0) and at odd places (half 1) of what comes in; they stay where they are. A step reads one half and
changes the other; the next step has them swapped, also in later blocks, until a split: there half of the samples leave,
and those that stay are dealt anew. Squeezed conditioning has halves, too (of the bands), and is swapped along, but
never split. All that is worked out in :func:`make_plan` and nowhere else; the modules that define the network,
training, synthesis and exports walk the list.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowavenet_plugin.flow.settings import FlowSettings
from flowavenet_plugin.kernels.stack_shape import StackShape

#: What a step is: an affine or additive coupling, or the Gaussian of the half that leaves in a split.
AFFINE, ADDITIVE, SPLIT = "affine", "additive", "split"
#: Layers of the WaveNet that parameterises a split's Gaussian.
PRIOR_LAYERS = 2


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        kind: Coupling, "affine" or "additive", after an ActNorm; or "split", which whitens the half that leaves.
        reads: The half that its WaveNet reads, 0 or 1; the other one changes.
        conds: Halves of the conditioning that the WaveNet reads, in the order of its weights; None: all that is made
            for the block.
        stack: Of its WaveNet.
        mixing: Channels are mixed between ActNorm and coupling.
    """

    kind: str
    reads: int
    conds: tuple[int, ...] | None
    stack: StackShape
    mixing: bool = False

    @property
    def changes(self) -> int:
        """The other half."""
        return 1 - self.reads

    @property
    def n_parameters(self) -> int:
        """Tensors of the step: ActNorm's loc and scale, unless it is a split, the mixing's, then its WaveNet's."""
        return self.stack.n_parameters + (0 if self.kind == SPLIT else 2) + self.mixing


@dataclass(frozen=True)
class Block:
    """Steps at one rate.

    Attributes:
        level: A column holds ``2**level`` samples of the waveform.
        squeezes: Squeezes from the block before.
        channels: Of the squeezed audio.
        cond_channels: Of the conditioning.
        width: Channels of its WaveNets.
        steps: In forward order; with a split, its step is the last.
        splits: Splits before it.
    """

    level: int
    squeezes: int
    channels: int
    cond_channels: int
    width: int
    steps: tuple[Step, ...]
    splits: int

    @property
    def kept(self) -> int | None:
        """The half that goes on to the next block; None: both do."""
        return self.steps[-1].reads if self.steps[-1].kind == SPLIT else None

    @property
    def reach(self) -> int:
        """Columns that a convolution in it reaches to one side, at most."""
        return max(step.stack.widest for step in self.steps)


def make_plan(settings: FlowSettings) -> tuple[Block, ...]:
    """Settle all steps, block by block, in forward order."""
    kind, shared = AFFINE if settings.affine else ADDITIVE, settings.cond_channels == 0
    first, squeezes = settings.first_squeeze.bit_length() - 1, settings.first_squeeze.bit_length() - 1
    sizes = zip(*map(settings.each, ("n_flow", "n_layer", "filter_size", "cond_channels")), strict=True)
    blocks: list[Block] = []
    channels = 1
    swapped = cond_swapped = 0  # whether halves of audio and conditioning are, where the block begins
    for i, (n_flow, n_layer, width, cond) in enumerate(sizes):
        level, splits = first + i, i + 1 in settings.splits
        channels *= 2**squeezes
        stack, prior = (StackShape(n, settings.kernel_size, settings.causal) for n in (n_layer, PRIOR_LAYERS))
        steps = []
        for k in range(n_flow):
            half = ((cond_swapped + k) % 2,) if shared else None
            steps.append(Step(kind, (swapped + k) % 2, half, stack, settings.mixing))
        swapped, cond_swapped = (swapped + n_flow) % 2, (cond_swapped + n_flow) % 2
        if splits:
            steps.append(Step(SPLIT, swapped, (cond_swapped, 1 - cond_swapped) if shared else None, prior))
            swapped = 0
        cond = settings.n_mels * 2**level if shared else cond
        before = sum(block.kept is not None for block in blocks)
        blocks.append(Block(level, squeezes, channels, cond, width, tuple(steps), before))
        channels, squeezes = channels // 2 if splits else channels, 1
    return tuple(blocks)
