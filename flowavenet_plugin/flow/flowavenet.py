"""FloWaveNet: a flow between waveforms and Gaussian noise, conditioned on mel-spectrograms.

Kim et al., "FloWaveNet: A Generative Flow for Raw Audio", ICML 2019, arXiv 1811.02155.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import own_arithmetic, usable
from flowavenet_plugin.flow.block import FlowBlock
from flowavenet_plugin.flow.chain import squeezed
from flowavenet_plugin.flow.conditioner import BlockConditioner
from flowavenet_plugin.flow.transforms import squeeze, unsqueeze
from flowavenet_plugin.flow.upsample import ConditionUpsampler, length_mask

#: A block's conditioning, and its order, as in :class:`~flowavenet_plugin.flow.chain.Chain`.
BlockCond = tuple[Tensor, Tensor | None]


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

    def __init__(
        self,
        n_mels: int = 80,
        n_block: int = 8,
        n_flow: int | Sequence[int] = 6,
        n_layer: int | Sequence[int] = 2,
        filter_size: int | Sequence[int] = 256,
        kernel_size: int = 3,
        block_per_split: int | Sequence[int] = 4,
        affine: bool = True,
        causal: bool = False,
        upsample_scales: Sequence[int] = (16, 16),
        reversible: bool = True,
        first_squeeze: int = 2,
        cond_channels: int | Sequence[int] = 0,
        cond_filter_size: int = 256,
        cond_n_layer: int = 2,
        mixing: bool = False,
        share_stacks: bool = False,
    ) -> None:
        """Build the network.

        Args:
            n_mels: Mel bands of the conditioning.
            n_block: Context blocks; each halves the rate, so that they see ever longer contexts.
            n_flow: Flow steps per block; of each block, if there are several numbers, as for the next two.
            n_layer: Dilated layers of a coupling's WaveNet.
            filter_size: Channels of the WaveNets.
            kernel_size: Taps of their dilated convolutions.
            block_per_split: Half of the channels leave after every so many blocks (not after the last block);
                ``n_block`` or more: single-scale. Or the numbers of the blocks after which they leave.
            affine: Affine couplings, else additive.
            causal: WaveNets reach to the past only.
            upsample_scales: Factors of the conditioning's upsampling; their product is the hop length in samples.
            reversible: The backward pass rebuilds activations from the outputs of blocks: memory doesn't grow with
                ``n_flow`` nor ``n_layer``. False: activations are kept, which takes less time.
            first_squeeze: Samples that a column of the first block holds, a power of two.
            cond_channels: Channels of the conditioning that a :class:`~.conditioner.BlockConditioner` makes for each
                block, for all or of each. 0: the paper's, upsampled to the sampling rate and squeezed like audio; else
                of ``upsample_scales`` only the product counts.
            cond_filter_size: Hidden channels of that network.
            cond_n_layer: Its residual layers.
            mixing: Steps mix the channels of each column, see :class:`~.transforms.Mixing`.
            share_stacks: The WaveNets of a block's steps share their weights, but for conditioning and end (NanoFlow,
                arXiv 2006.06280).

        Raises:
            ValueError: If a size is out of range.
        """
        super().__init__()
        splits = _splits(block_per_split, n_block)
        if first_squeeze < 2 or first_squeeze & (first_squeeze - 1):
            raise ValueError(f"first_squeeze must be a power of two from 2, not {first_squeeze}")
        self.n_mels = n_mels
        first = first_squeeze.bit_length() - 1
        #: Of each block: its columns are 2**level samples.
        self.levels = list(range(first, first + n_block))
        conds = _each("cond_channels", cond_channels, n_block)
        self.upsampler: ConditionUpsampler | BlockConditioner = ConditionUpsampler(upsample_scales)
        shared = cond_channels == 0
        if not shared:
            hop = self.upsampler.hop_length
            self.upsampler = BlockConditioner(n_mels, hop, self.levels, conds, cond_filter_size, cond_n_layer)
        sizes = [_each("n_flow", n_flow, n_block), _each("n_layer", n_layer, n_block)]
        sizes.append(_each("filter_size", filter_size, n_block))
        wavenet = dict(kernel_size=kernel_size, causal=causal, mixing=mixing, share_stacks=share_stacks)
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


def _splits(block_per_split: int | Sequence[int], n_block: int) -> list[int]:
    """Return the numbers of the blocks that end with a split."""
    every = isinstance(block_per_split, int)
    if n_block < 1 or (block_per_split < 1 if every else not all(0 < n < n_block for n in block_per_split)):
        raise ValueError(
            f"n_block and block_per_split must be at least 1, and blocks that split less than n_block, not "
            f"n_block={n_block}, block_per_split={block_per_split}"
        )
    return list(range(block_per_split, n_block, block_per_split)) if every else list(block_per_split)


def _each(name: str, value: int | Sequence[int], n_block: int) -> list[int]:
    """Return the value of each block."""
    values = [value] * n_block if isinstance(value, int) else list(value)
    if len(values) != n_block:
        raise ValueError(f"{name} has {len(values)} values, {values}, for n_block={n_block} blocks")
    return values
