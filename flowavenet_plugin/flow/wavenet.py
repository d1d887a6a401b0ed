"""The gated dilated convolution stack inside couplings and priors (arXiv 1811.02155, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from flowavenet_plugin.kernels.backends import RESIDUAL
from flowavenet_plugin.kernels.stack_parameters import SCALE_SLOPE
from flowavenet_plugin.kernels.stack_shape import FRONT_KERNEL_SIZE


def gated_activation(x: Tensor) -> Tensor:
    """Return tanh(filter) * sigmoid(gate) (arXiv 1609.03499, equation 2).

    Args:
        x: Filter channels, then as many gate channels, shape (B, 2 * C, T).

    Returns:
        Activation, shape (B, C, T).
    """
    filter_, gate = x.chunk(2, dim=1)
    return torch.tanh(filter_) * torch.sigmoid(gate)


class PaddedConv1d(nn.Module):
    """Weight-normalised convolution that keeps T, reaching to both sides or, if causal, to the past only."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, causal: bool = False
    ) -> None:
        super().__init__()
        reach = dilation * (kernel_size - 1)
        self.left = reach if causal else 0
        padding = 0 if causal else reach // 2
        conv = nn.Conv1d(in_channels, out_channels, kernel_size, dilation=dilation, padding=padding)
        self.conv = weight_norm(conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T) to (B, out_channels, T)."""
        return self.conv(F.pad(x, (self.left, 0)) if self.left else x)


class ZeroConv1d(nn.Module):
    """1x1 convolution that starts at zero, so that each coupling starts as the identity (Glow, arXiv 1807.03039)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.scale = nn.Parameter(torch.zeros(1, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T) to (B, out_channels, T)."""
        return self.conv(x) * torch.exp(SCALE_SLOPE * self.scale)


class GatedLayer(nn.Module):
    """One dilated layer: filter and gate in one convolution, residual and skip in another.

    The last layer of a stack has no residual branch: nothing would read it, and its parameters would never get a
    gradient.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, causal: bool, last: bool) -> None:
        super().__init__()
        self.dilated = PaddedConv1d(channels, 2 * channels, kernel_size, dilation, causal)
        self.out = weight_norm(nn.Conv1d(channels, channels if last else 2 * channels, 1))
        self.last = last

    def forward(self, h: Tensor, cond: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the next hidden state (None from the last layer) and the skip output, both (B, C, T).

        Args:
            h: Hidden state, shape (B, C, T).
            cond: Projected conditioning of this layer, shape (B, 2 * C, T).
        """
        out = self.out(gated_activation(self.dilated(h) + cond))
        if self.last:
            return None, out
        residual, skip = out.chunk(2, dim=1)
        return (h + residual) * RESIDUAL, skip


class WaveNet(nn.Module):
    """Predict ``out_channels`` values per column from the columns around it and their conditioning."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_channels: int,
        filter_size: int = 256,
        n_layer: int = 2,
        kernel_size: int = 3,
        causal: bool = False,
    ) -> None:
        """Build the stack.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the prediction.
            cond_channels: Channels of the conditioning.
            filter_size: Residual, gate and skip channels.
            n_layer: Number of dilated layers; layer i has dilation 2**i.
            kernel_size: Taps of a dilated convolution.
            causal: Reach to the past only.
        """
        super().__init__()
        self.front = PaddedConv1d(in_channels, filter_size, FRONT_KERNEL_SIZE, causal=causal)
        # One product for the conditioning of all layers: their inputs are the same.
        self.cond = weight_norm(nn.Conv1d(cond_channels, 2 * filter_size * n_layer, 1))
        self.layers = nn.ModuleList(
            GatedLayer(filter_size, kernel_size, 2**i, causal, last=i == n_layer - 1) for i in range(n_layer)
        )
        self.skip = weight_norm(nn.Conv1d(filter_size, filter_size, 1))
        self.end = ZeroConv1d(filter_size, out_channels)

    def share(self, other: WaveNet) -> None:
        """Take over another's front, dilated layers and skip; conditioning and end stay its own."""
        self.front, self.layers, self.skip = other.front, other.layers, other.skip

    def stack_parameters(self) -> list[Tensor]:
        """List the parameters in the order of :meth:`StackWeights.of`."""
        inner = [conv for layer in self.layers for conv in (layer.dilated.conv, layer.out)]
        found = []
        for conv in (self.front.conv, self.cond, *inner, self.skip):
            weight = conv.parametrizations.weight
            found += [conv.bias, weight.original0, weight.original1]
        return [*found, self.end.conv.weight, self.end.conv.bias, self.end.scale]

    def forward(self, x: Tensor, cond: Tensor, columns: Tensor | None = None) -> Tensor:
        """Run the stack.

        Args:
            x: Input, shape (B, in_channels, T).
            cond: Conditioning at the same rate, shape (B, cond_channels, T).
            columns: 1 for columns inside the utterance and 0 beyond, shape (B, 1, T); None: all inside. Hidden
                states beyond the end are zero, as a convolution's own padding is, so that an item's output doesn't
                depend on how far it was padded.

        Returns:
            Prediction, shape (B, out_channels, T).
        """
        h: Tensor | None = F.relu(self.front(x))
        skips = None
        for layer, layer_cond in zip(self.layers, self.cond(cond).chunk(len(self.layers), dim=1), strict=True):
            if columns is not None:
                h = h * columns
            h, skip = layer(h, layer_cond)
            skips = skip if skips is None else skips + skip
        return self.end(F.relu(self.skip(F.relu(skips))))
