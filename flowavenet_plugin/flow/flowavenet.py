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
from flowavenet_plugin.flow.block import FlowBlock
from flowavenet_plugin.flow.chain import squeezed
from flowavenet_plugin.flow.conditioner import BlockConditioner
from flowavenet_plugin.flow.settings import FlowSettings, takes
from flowavenet_plugin.flow.transforms import squeeze, unsqueeze
from flowavenet_plugin.flow.upsample import ConditionUpsampler, length_mask

#: A block's conditioning, and its order, as in :class:`~flowavenet_plugin.flow.chain.Chain`.
BlockCond = tuple[Tensor, Tensor | None]


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
        splits, affine, reversible = given.splits, given.affine, given.reversible
        self.n_mels = n_mels = given.n_mels
        first = given.first_squeeze.bit_length() - 1
        #: Of each block: its columns are 2**level samples.
        self.levels = list(range(first, first + given.n_block))
        conds = given.each("cond_channels")
        self.upsampler: ConditionUpsampler | BlockConditioner = ConditionUpsampler(given.upsample_scales)
        shared = given.cond_channels == 0
        if not shared:
            sizes = self.levels, conds, given.cond_filter_size, given.cond_n_layer
            self.upsampler = BlockConditioner(n_mels, given.hop_length, *sizes)
        sizes = [given.each(name) for name in ("n_flow", "n_layer", "filter_size")]
        wavenet = {name: getattr(given, name) for name in ("kernel_size", "causal", "mixing", "share_stacks")}
        self.blocks = nn.ModuleList()
        channels = 1
        for i, (flows, layers, width) in enumerate(zip(*sizes, strict=True)):
            split = i + 1 in splits
            channels *= 2 ** self._squeezes(i)
            cond = n_mels * 2 ** self.levels[i] if shared else conds[i]
            own = dict(n_flow=flows, n_layer=layers, filter_size=width, cond_halves=shared, **wavenet)
            self.blocks.append(FlowBlock(channels, cond, affine=affine, split=split, reversible=reversible, **own))
            channels = channels // 2 if split else channels
        self._orders: dict[torch.device, list[Tensor]] = {}

    def _squeezes(self, index: int) -> int:
        return 1 if index else self.levels[0]

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
        return 2 ** self.levels[-1]

    @property
    def receptive_field(self) -> int:
        """Samples on each side (causal: in the past, and less than one column ahead) that a value may depend on."""
        reach = self.column - 1
        for level, block in zip(self.levels, self.blocks, strict=True):
            columns = sum(step.coupling.net.reach for step in block.steps)
            columns += block.split.prior.reach if block.split is not None else 0
            reach += columns * 2**level
        return reach

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
        x, conds, mask = self._prepare(x, cond, lengths)
        logdet = x.new_zeros(x.shape[0])
        leaves = []
        for i, (block, (block_cond, order)) in enumerate(zip(self.blocks, conds, strict=True)):
            x = squeeze(x, self._squeezes(i))
            mask = None if mask is None else squeeze(mask, self._squeezes(i))
            x, block_logdet = block.forward_shared(x, block_cond, order, mask)
            logdet = logdet + block_logdet
            mask = block.orient(mask)
            if block.split is not None:
                x, leaf = x.chunk(2, dim=1)
                leaves.append(leaf)
                mask = None if mask is None else mask.chunk(2, dim=1)[0]
        for i, block in reversed(list(enumerate(self.blocks))):
            x = torch.cat([x, leaves.pop()], dim=1) if block.split is not None else x
            x = unsqueeze(block.orient(x), self._squeezes(i))  # each value where the sample was that it came from
        return x[:, :, :size], logdet

    @own_arithmetic
    def inverse(self, noise: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map noise to audio: the inverse of :meth:`forward`.

        Args:
            noise: Noise, shape (B, 1, T) with T = frames * hop_length.
            cond: Conditioning, shape (B, n_mels, frames).
            lengths: As in :meth:`forward`.

        Returns:
            Waveform, shape (B, 1, T), zero beyond ``lengths``.

        Raises:
            ValueError: If shapes don't fit each other or the model.
        """
        size = self._check(noise, cond)
        x, conds, mask = self._prepare(noise, cond, lengths)
        masks = []  # of each block's forward pass
        leaves = []
        for i, block in enumerate(self.blocks):
            x = block.orient(squeeze(x, self._squeezes(i)))
            masks.append(None if mask is None else squeeze(mask, self._squeezes(i)))
            mask = block.orient(masks[-1])
            if block.split is not None:
                x, leaf = x.chunk(2, dim=1)
                leaves.append(leaf)
                mask = None if mask is None else mask.chunk(2, dim=1)[0]
        for i, block in reversed(list(enumerate(self.blocks))):
            if block.split is not None:
                x = torch.cat([x, leaves.pop()], dim=1)
            block_cond = squeezed(*conds.pop(), x.shape[2])
            x = unsqueeze(block.inverse(x, block_cond, masks.pop()), self._squeezes(i))
        return x[:, :, :size]

    @own_arithmetic
    def log_likelihood(self, x: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return log p(x | cond) per item in nats per sample, shape (B,); arguments as in :meth:`forward`."""
        noise, logdet = self(x, cond, lengths)
        count = x.new_full((x.shape[0],), x.shape[2]) if lengths is None else lengths.to(x.dtype)
        energy = 0.5 * noise.square().sum(dim=(1, 2))
        return (logdet - energy) / count - 0.5 * math.log(2 * math.pi)

    def _cond_orders(self, device: torch.device) -> list[Tensor]:
        """List where each block's squeezed conditioning channels are among the values of 2, 4, ... columns."""
        if device not in self._orders:
            self._orders[device] = [self._cond_order(i).to(device) for i in range(len(self.blocks))]
        return self._orders[device]

    def _cond_order(self, index: int) -> Tensor:
        n = 2 ** self.levels[index]
        places = torch.arange(n * self.n_mels, device="cpu").view(1, n, self.n_mels).transpose(1, 2)
        for i, block in enumerate(self.blocks[:index]):
            places = block.orient(squeeze(places, self._squeezes(i)))
        return squeeze(places, self._squeezes(index)).flatten()

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
