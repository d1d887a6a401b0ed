"""FloWaveNet: a flow between waveforms and Gaussian noise, conditioned on mel-spectrograms.

Kim et al., "FloWaveNet: A Generative Flow for Raw Audio", ICML 2019, arXiv 1811.02155.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import own_arithmetic, usable
from flowavenet_plugin.flow.conditioner import BlockConditioner
from flowavenet_plugin.flow.definition import block_forward, block_inverse
from flowavenet_plugin.flow.layout import cond_order
from flowavenet_plugin.flow.plan import make_plan
from flowavenet_plugin.flow.settings import FlowSettings, takes
from flowavenet_plugin.flow.training.chain import Chain
from flowavenet_plugin.flow.transforms import FlowBlock
from flowavenet_plugin.flow.upsample import ConditionUpsampler, length_mask
from flowavenet_plugin.flow.walk import BlockCond, run_forward, run_inverse
from flowavenet_plugin.kernels.scratch import Memory


@takes(FlowSettings)
class FloWaveNet(nn.Module):
    """The invertible network; defaults are the paper's.

    Example:
        >>> flow = FloWaveNet(n_mels=4, n_block=2, n_flow=2, filter_size=8, upsample_scales=(2, 4))
        >>> x, cond = torch.randn(3, 1, 40), torch.randn(3, 4, 5)
        >>> noise, logdet = flow(x, cond)
        >>> noise.shape, logdet.shape
        (torch.Size([3, 1, 40]), torch.Size([3]))
        >>> torch.allclose(flow.inverse(noise, cond), x, atol=1e-5)
        True
    """

    def __init__(self, **settings: Any) -> None:
        """Build the network.

        Args:
            settings: Of :class:`FlowSettings`.

        Raises:
            ValueError: If a size is out of range.
        """
        super().__init__()
        given = FlowSettings(**settings)
        #: What the network consists of, see :mod:`flowavenet_plugin.flow.plan`.
        self.plan = make_plan(given)
        self.n_mels, self.reversible = given.n_mels, given.reversible
        self.upsampler: ConditionUpsampler | BlockConditioner = ConditionUpsampler(given.upsample_scales)
        if given.cond_channels != 0:
            levels, channels = zip(*((block.level, block.cond_channels) for block in self.plan), strict=True)
            sizes = channels, given.cond_filter_size, given.cond_n_layer
            self.upsampler = BlockConditioner(given.n_mels, given.hop_length, levels, *sizes)
        self.blocks = nn.ModuleList(FlowBlock(block, given.share_stacks) for block in self.plan)
        self._memories = [Memory() for _ in self.plan]
        self._orders: dict[torch.device, list[Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.blocks[0].steps[0].actnorm.loc.device

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.upsampler.hop_length

    @property
    def column(self) -> int:
        """Samples that the last block sees as one column: lengths are padded to multiples of it, inside."""
        return 2 ** self.plan[-1].level

    @property
    def receptive_field(self) -> int:
        """Samples on each side (causal: in the past, and less than one column ahead) that a value may depend on."""
        reaches = (sum(step.stack.reach for step in block.steps) << block.level for block in self.plan)
        return self.column - 1 + sum(reaches)

    @own_arithmetic
    def forward(self, x: Tensor, cond: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map audio to noise.

        Args:
            x: Waveform, amplitude in [-1, 1], shape (B, 1, T) with T = frames * hop_length.
            cond: Conditioning, shape (B, n_mels, frames).
            lengths: Samples of each item, shape (B,); what lies beyond is padding: it is neither seen nor counted.
                None: all are T samples long.

        Returns:
            Noise, shape (B, 1, T), standard normal under the model and zero beyond ``lengths``; and
            log|det dnoise/dx| per item in nats, shape (B,).

        Raises:
            ValueError: If shapes don't fit each other or the model.
        """
        size = self._check(x, cond)
        noise, logdet = run_forward(self.plan, self._block_forward, *self._prepare(x, cond, lengths))
        return noise[:, :, :size], logdet

    @own_arithmetic
    def inverse(self, noise: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map noise (B, 1, T) to audio: the inverse of :meth:`forward`.

        Other arguments and errors are as there; the waveform has the shape of the noise and is zero beyond ``lengths``.
        """
        size = self._check(noise, cond)
        return run_inverse(self.plan, self._block_inverse, *self._prepare(noise, cond, lengths))[:, :, :size]

    @own_arithmetic
    def inverse_by_modules(self, noise: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """As :meth:`inverse`, by torch's own operators only, which can be traced."""
        size = self._check(noise, cond)

        def run(i: int, z: Tensor, block_cond: BlockCond, mask: Tensor | None) -> Tensor:
            return block_inverse(self.plan[i], self.blocks[i], z, block_cond, mask)

        return run_inverse(self.plan, run, *self._prepare(noise, cond, lengths))[:, :, :size]

    @own_arithmetic
    def log_likelihood(self, x: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return log p(x | cond) per item in nats per sample, shape (B,); arguments as in :meth:`forward`."""
        noise, logdet = self(x, cond, lengths)
        count = x.new_full((x.shape[0],), x.shape[2]) if lengths is None else lengths.to(x.dtype)
        energy = 0.5 * noise.square().sum(dim=(1, 2))
        return (logdet - energy) / count - 0.5 * math.log(2 * math.pi)

    def _block_forward(self, index: int, x: Tensor, cond: BlockCond, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        module = self.blocks[index]
        if self.training and not all(step.actnorm.started for step in module.steps):
            with torch.no_grad():  # every ActNorm sees its first input
                block_forward(self.plan[index], module, x, cond, mask)
        return self._run_block(index, x, cond, mask, inverse=False)

    def _block_inverse(self, index: int, z: Tensor, cond: BlockCond, mask: Tensor | None) -> Tensor:
        return self._run_block(index, z, cond, mask, inverse=True)[0]

    def _run_block(
        self, index: int, x: Tensor, cond: BlockCond, mask: Tensor | None, inverse: bool
    ) -> tuple[Tensor, Tensor | None]:
        trains = torch.is_grad_enabled()
        memory = self._memories[index] if trains else Memory()
        chain = Chain(self.plan[index], cond[1], trains and not self.reversible, memory, inverse)
        return chain(x, cond[0], mask, self.blocks[index].chain_parameters())

    def _cond_orders(self, device: torch.device) -> list[Tensor]:
        """List where each block's squeezed conditioning channels are among the values of 2, 4, ... columns."""
        if device not in self._orders:
            self._orders[device] = [cond_order(self.n_mels, block.level).to(device) for block in self.plan]
        return self._orders[device]

    def _check(self, x: Tensor, cond: Tensor) -> int:
        if x.dim() != 3 or x.shape[1] != 1:
            raise ValueError(f"expected shape (B, 1, T), got {tuple(x.shape)}")
        if cond.dim() != 3 or cond.shape[1] != self.n_mels or cond.shape[0] != x.shape[0]:
            raise ValueError(
                f"expected conditioning of shape ({x.shape[0]}, n_mels={self.n_mels}, frames), got {tuple(cond.shape)}"
            )
        if x.shape[2] != cond.shape[2] * self.hop_length:
            raise ValueError(f"{x.shape[2]} samples don't fit {cond.shape[2]} frames of {self.hop_length} samples each")
        return x.shape[2]

    def _prepare(
        self, x: Tensor, cond: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, list[BlockCond], Tensor | None]:
        """Pad to whole columns, make each block's conditioning and mark the samples that count."""
        x, cond = usable(x), usable(cond)
        size = x.shape[2]
        surplus = -size % self.column
        if lengths is None and surplus:
            lengths = torch.full((x.shape[0],), size, device=x.device)
        if lengths is None:
            return x, self._conds(cond, None, size), None
        frames = torch.div(lengths + self.hop_length - 1, self.hop_length, rounding_mode="floor")
        x = F.pad(x, (0, surplus))
        mask = length_mask(lengths, x.shape[2]).to(x.dtype)
        return x * mask, self._conds(cond, frames, x.shape[2]), mask

    def _conds(self, cond: Tensor, frames: Tensor | None, samples: int) -> list[BlockCond]:
        if isinstance(self.upsampler, BlockConditioner):
            return [(made, None) for made in self.upsampler(cond, frames, samples)]
        upsampled = self.upsampler(cond, frames)
        if frames is not None:
            upsampled = F.pad(upsampled, (0, samples - upsampled.shape[2]))
        shared = upsampled.transpose(1, 2).contiguous()
        return [(shared, order) for order in self._cond_orders(cond.device)]
