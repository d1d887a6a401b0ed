"""The weights of a whole network, folded."""

from __future__ import annotations

import torch
from torch import nn

from flowavenet_plugin.flow.arithmetic import arithmetic
from flowavenet_plugin.flow.conditioner import BlockConditioner
from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.synthesis.step import PreparedBlock
from flowavenet_plugin.flow.synthesis.upsampling import Upsampling


class FoldedFlow:
    """What synthesis reads of a :class:`FloWaveNet`: folded weights, and what the network says of itself."""

    @torch.no_grad()
    def __init__(self, flow: FloWaveNet, dtype: torch.dtype | None = None, release: bool = False) -> None:
        """Fold the weights.

        Args:
            flow: The network.
            dtype: Precision inside the WaveNets, for instance ``torch.bfloat16``; samples and conditioning's upsampling
                keep that of the network. Default: the network's.
            release: Take the weights out of the network as they are folded, so that they are never there twice. The
                network has none afterwards.
        """
        self._flow = None if release else flow
        self._state = _state(flow)
        self.float_dtype, self.device = flow.blocks[0].steps[0].actnorm.loc.dtype, flow.device
        self.dtype = self.float_dtype if dtype is None else dtype
        self.n_mels, self.hop_length, self.column = flow.n_mels, flow.hop_length, flow.column
        self.blocks: list[PreparedBlock] = []  # from the first to the last, as in the flow
        with arithmetic(self.device):
            per_block = isinstance(flow.upsampler, BlockConditioner)
            self.upsampler = flow.upsampler if per_block else Upsampling(flow.upsampler)
            for i in reversed(range(len(flow.blocks))):  # the largest first, while there is memory
                self.blocks.insert(0, PreparedBlock(flow.plan[i], flow.blocks[i], flow.n_mels, self.dtype))
                if release:
                    _release(flow.blocks[i], flow.blocks[:i])

    @property
    def stale(self) -> bool:
        """Whether the network's weights were replaced or changed since; a change through ``.data`` isn't seen.

        Weights that were made in inference mode always count as changed: nothing tells.
        """
        return self._flow is not None and (self._state is None or self._state != _state(self._flow))


def _release(block: nn.Module, others: nn.ModuleList) -> None:
    """Free a block's parameters, but for those that other blocks share."""
    shared = {id(parameter) for parameter in others.parameters()}
    for parameter in block.parameters():
        if id(parameter) not in shared:
            parameter.data = parameter.data.new_empty(0)


def _state(flow: FloWaveNet) -> list[tuple[int, int, torch.dtype, torch.device]] | None:
    """Return what tells whether weights have changed; None: nothing does, as tensors of inference mode don't count."""
    if any(parameter.is_inference() for parameter in flow.parameters()):
        return None
    return [(each.data_ptr(), each._version, each.dtype, each.device) for each in flow.parameters()]
