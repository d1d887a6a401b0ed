"""FloWaveNet: a flow between waveforms and Gaussian noise, conditioned on mel-spectrograms.

Kim et al., "FloWaveNet: A Generative Flow for Raw Audio", ICML 2019, arXiv 1811.02155.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet_plugin.flow.block import FlowBlock
from flowavenet_plugin.flow.transforms import squeeze, unsqueeze
from flowavenet_plugin.flow.upsample import ConditionUpsampler, length_mask


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
        n_flow: int = 6,
        n_layer: int = 2,
        filter_size: int = 256,
        kernel_size: int = 3,
        block_per_split: int = 4,
        affine: bool = True,
        causal: bool = False,
        upsample_scales: Sequence[int] = (16, 16),
        reversible: bool = True,
    ) -> None:
        """Build the network.

        Args:
            n_mels: Mel bands of the conditioning.
            n_block: Context blocks; each halves the rate, so that they see ever longer contexts.
            n_flow: Flow steps per block.
            n_layer: Dilated layers of a coupling's WaveNet.
            filter_size: Channels of the WaveNets.
            kernel_size: Taps of their dilated convolutions.
            block_per_split: Half of the channels leave after every so many blocks (not after the last block);
                ``n_block`` or more: single-scale.
            affine: Affine couplings, else additive.
            causal: WaveNets reach to the past only.
            upsample_scales: Factors of the conditioning's upsampling; their product is the hop length in samples.
            reversible: The backward pass rebuilds activations from the outputs of blocks: memory doesn't grow with
                ``n_flow`` nor ``n_layer``. False: activations are kept, which takes less time.

        Raises:
            ValueError: If a size is out of range.
        """
        super().__init__()
        if n_block < 1 or block_per_split < 1:
            raise ValueError(
                f"n_block and block_per_split must be at least 1, not n_block={n_block}, "
                f"block_per_split={block_per_split}"
            )
        self.n_mels = n_mels
        self.upsampler = ConditionUpsampler(upsample_scales)
        block = dict(
            n_flow=n_flow,
            affine=affine,
            n_layer=n_layer,
            reversible=reversible,
            filter_size=filter_size,
            kernel_size=kernel_size,
            causal=causal,
        )
        self.blocks = nn.ModuleList()
        channels, cond_channels = 1, n_mels
        for i in range(1, n_block + 1):
            split = i % block_per_split == 0 and i < n_block
            channels, cond_channels = 2 * channels, 2 * cond_channels
            self.blocks.append(FlowBlock(channels, cond_channels, split=split, **block))
            channels = channels // 2 if split else channels
        self._orders: dict[torch.device, list[Tensor]] = {}

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.upsampler.hop_length

    @property
    def column(self) -> int:
        """Samples that the last block sees as one column: lengths are padded to multiples of it, inside."""
        return 2 ** len(self.blocks)

    @property
    def receptive_field(self) -> int:
        """Samples on each side (causal: in the past, and less than one column ahead) that a value may depend on."""
        reach = self.column - 1
        for i, block in enumerate(self.blocks, 1):
            columns = sum(step.coupling.net.reach for step in block.steps)
            columns += block.split.prior.reach if block.split is not None else 0
            reach += columns * 2**i
        return reach

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
        x, cond, mask = self._prepare(x, cond, lengths)
        cond = cond.transpose(1, 2).contiguous()
        logdet = x.new_zeros(x.shape[0])
        leaves = []
        for block, order in zip(self.blocks, self._cond_orders(x.device), strict=True):
            x = squeeze(x)
            mask = None if mask is None else squeeze(mask)
            x, block_logdet = block.forward_shared(x, cond, order, mask)
            logdet = logdet + block_logdet
            mask = block.orient(mask)
            if block.split is not None:
                x, leaf = x.chunk(2, dim=1)
                leaves.append(leaf)
                mask = None if mask is None else mask.chunk(2, dim=1)[0]
        for block in reversed(self.blocks):
            x = torch.cat([x, leaves.pop()], dim=1) if block.split is not None else x
            x = unsqueeze(block.orient(x))  # each value of the noise where the sample was that it came from
        return x[:, :, :size], logdet

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
        x, cond, mask = self._prepare(noise, cond, lengths)
        views = []  # what each block's forward pass gets besides x
        leaves = []
        for block in self.blocks:
            x, cond = squeeze(x), squeeze(cond)
            mask = None if mask is None else squeeze(mask)
            views.append((cond, mask))
            x, cond, mask = block.orient(x), block.orient(cond), block.orient(mask)
            if block.split is not None:
                x, leaf = x.chunk(2, dim=1)
                leaves.append(leaf)
                mask = None if mask is None else mask.chunk(2, dim=1)[0]
        for block in reversed(self.blocks):
            if block.split is not None:
                x = torch.cat([x, leaves.pop()], dim=1)
            x = unsqueeze(block.inverse(x, *views.pop()))
        return x[:, :, :size]

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
        n = 2 ** (index + 1)
        places = torch.arange(n * self.n_mels, device="cpu").view(1, n, self.n_mels).transpose(1, 2)
        for block in self.blocks[:index]:
            places = block.orient(squeeze(places))
        return squeeze(places).flatten()

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

    def _prepare(self, x: Tensor, cond: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Upsample the conditioning, pad to whole columns and mark the samples that count."""
        size = x.shape[2]
        surplus = -size % self.column
        if lengths is None and surplus:
            lengths = torch.full((x.shape[0],), size, device=x.device)
        if lengths is None:
            return x, self.upsampler(cond), None
        frames = torch.div(lengths + self.hop_length - 1, self.hop_length, rounding_mode="floor")
        x = F.pad(x, (0, surplus))
        cond = F.pad(self.upsampler(cond, frames), (0, surplus))
        mask = length_mask(lengths, x.shape[2]).to(x.dtype)
        return x * mask, cond, mask
