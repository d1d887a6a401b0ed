"""Linear prediction from the mel-spectrogram: takes the spectral envelope out of the waveform before the flow sees it.

A mel-spectrogram nearly tells the power spectrum, and a power spectrum tells how to predict each sample from those
before it (Makhoul 1975; Valin and Skoglund, LPCNet, arXiv 1810.11846). What can't be predicted, divided by its
expected size, is white noise and pulses: far less to learn for the flow. The filter is a bijection whose
log-determinant is known, so that likelihoods stay exact. Its inverse is a recursion over samples, solved block by
block. What is predicted leaves a small difference of large numbers: all of it is computed in float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import exact_linear, own_arithmetic
from flowavenet_plugin.flow.prediction_matrices import BINS, cholesky, interpolation, lengthened
from flowavenet_plugin.flow.recursion import Filters, Recursion, whiten

#: Channels of its network, and the lowest and highest frequency of the features in Hz, unless told otherwise.
CHANNELS, MEL_RANGE = 128, (80.0, 7600.0)
#: Least power per sample: a deviation of one step of 16-bit audio.
FLOOR = 2.0**-30
#: Share of the power that is added as white noise, so that the equations stay solvable.
RIDGE = 1e-9


class LinearPrediction(nn.Module):
    """Whiten a waveform by filters that are computed from the features.

    The log-power spectrum of a block starts as the log-mel, interpolated over frequency and time; a small network,
    which starts at zero, adds what training tells.

    Example:
        >>> prediction = LinearPrediction(fs=16000, hop_length=64, n_mels=5, order=4)
        >>> x, feats = torch.randn(2, 3 * 64), torch.randn(2, 3, 5)
        >>> residual, logdet = prediction(x, feats, feats)
        >>> residual.shape, logdet.shape
        (torch.Size([2, 192]), torch.Size([2]))
        >>> torch.allclose(prediction.inverse(residual, feats, feats), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        fs: int,
        hop_length: int,
        n_mels: int,
        order: int,
        channels: int = CHANNELS,
        mel_range: tuple[float, float] = MEL_RANGE,
    ) -> None:
        """Build the network.

        Args:
            fs: Sampling rate in Hz.
            hop_length: Samples per frame.
            n_mels: Mel bands of the features, log10 of amplitude in Slaney's scale where training starts.
            order: Samples that the prediction looks back.
            channels: Channels of the network.
            mel_range: Lowest and highest frequency of the mel bands in Hz.

        Raises:
            ValueError: If the order is longer than a block.
        """
        super().__init__()
        self.hop_length = hop_length
        self.blocks = 2 if hop_length % 2 == 0 else 1  # per frame
        self.block = hop_length // self.blocks
        if not 1 <= order <= min(self.block, BINS - 1):
            raise ValueError(
                f"prediction_order must be from 1 to {min(self.block, BINS - 1)} (hop_length {hop_length}), not {order}"
            )
        self.order = order
        self.register_buffer("_bands", interpolation(fs, n_mels, mel_range), persistent=False)
        self.hidden = nn.Sequential(
            nn.Linear(3 * n_mels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU()
        )
        self.out = nn.Linear(channels + 3 * n_mels, self.blocks * BINS)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.out.bias.device

    @own_arithmetic
    def forward(self, x: Tensor, feats: Tensor, cond: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Whiten.

        Args:
            x: Waveform, shape (B, T) with T = frames * hop_length.
            feats: Features as they are, shape (B, frames, n_mels).
            cond: Features standardised, same shape.
            lengths: Samples of each item, shape (B,); what lies beyond is neither seen nor counted. None: all.

        Returns:
            Residual, shape (B, T), zero beyond ``lengths``; log|det dresidual/dx| per item in nats, shape (B,).
        """
        return self.whiten(x, self.all_filters(feats, cond, lengths), lengths)

    @own_arithmetic
    def whiten(self, x: Tensor, filters: Filters, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, by the filters of :meth:`all_filters`."""
        batch, size, order = x.shape[0], x.shape[1], self.order
        inside = None if lengths is None else torch.arange(size, device=x.device) < lengths[:, None]
        x = x if inside is None else x.masked_fill(~inside, 0)
        weights = filters.weights.view(batch, -1, order + 1)
        log_gain = -weights[:, :, -1:].log().expand(-1, -1, self.block).reshape(batch, size)
        first = cholesky(filters.correlation.view(batch, -1, order)[:, 0])
        residual = whiten(x, weights, first).to(x)
        log_gain = torch.cat([first.diagonal(dim1=1, dim2=2).log(), log_gain[:, order:]], dim=1)
        if inside is not None:
            residual, log_gain = residual * inside, log_gain * inside
        return residual, -log_gain.sum(dim=1).to(x)

    @own_arithmetic
    def inverse(self, residual: Tensor, feats: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Undo :meth:`forward`; arguments and shapes as there.

        The gradient of the residual costs as much as this; that of what makes the filters only what they cost.
        """
        return self.color(residual, self.all_filters(feats, cond, lengths), lengths)

    @own_arithmetic
    def color(self, residual: Tensor, filters: Filters, lengths: Tensor | None = None) -> Tensor:
        """Undo :meth:`whiten`; arguments as there."""
        batch, size = residual.shape
        weights, correlation = (part.unflatten(0, (batch, -1)) for part in filters)
        x = Recursion.apply(residual.reshape(batch, -1, self.block), weights, correlation[:, 0])
        if lengths is not None:
            x = x * (torch.arange(size, device=x.device) < lengths[:, None])
        return x

    def filters(self, feats: Tensor, following: Tensor, context: Tensor) -> Filters:
        """Compute the filters of frames: power spectra, then Levinson's recursion.

        Args:
            feats: Features as they are, shape (N, n_mels).
            following: Those of the frames after them, same shape.
            context: Standardised features of the frames before, of the frames and of those after, shape
                (N, 3 * n_mels).

        Returns:
            Filters of N * ``blocks`` blocks, float64.
        """
        correlation = torch.fft.irfft(self.power(feats, following, context), dim=1)[:, : self.order + 1]
        correlation = torch.cat([correlation[:, :1] * (1 + RIDGE), correlation[:, 1:]], dim=1)
        taps, error = correlation[:, :0], correlation[:, :1]
        for known in range(self.order):
            taps, error = lengthened(taps, error, correlation, known)
        weights = torch.cat([-taps.flip(1), torch.ones_like(error)], dim=1)
        return Filters(weights * error.rsqrt(), correlation[:, :-1])

    def power(self, feats: Tensor, following: Tensor, context: Tensor) -> Tensor:
        """Return the power spectra (N * blocks, BINS), float64; arguments as of :meth:`filters`."""
        feats, following, context = feats.double(), following.double(), context.double()
        hidden = context
        for layer in (self.hidden[0], self.hidden[2]):
            hidden = F.relu(exact_linear(layer, hidden))
        learnt = exact_linear(self.out, torch.cat([hidden, context], dim=1)).view(-1, self.blocks, BINS)
        places = (torch.arange(self.blocks, device=feats.device, dtype=feats.dtype) + 0.5) / self.blocks
        mel = torch.lerp(feats[:, None], following[:, None], places[:, None])  # (N, blocks, n_mels)
        return torch.exp((mel @ self._bands.double() + learnt).flatten(0, 1)) + FLOOR

    @own_arithmetic
    def all_filters(self, feats: Tensor, cond: Tensor, lengths: Tensor | None) -> Filters:
        """Compute the filters of whole utterances, in the order of (B, frames, blocks)."""
        batch, frames = feats.shape[:2]
        places = torch.arange(frames, device=feats.device).expand(batch, -1)
        items, after = torch.arange(batch, device=feats.device)[:, None], (places + 1).clamp(max=frames - 1)
        if lengths is not None:
            after = torch.minimum(after, (lengths[:, None] - 1).div(self.hop_length, rounding_mode="floor"))
        context = torch.cat([cond[items, (places - 1).clamp(min=0)], cond, cond[items, after]], dim=2)
        return self.filters(*(part.flatten(0, 1) for part in (feats, feats[items, after], context)))
