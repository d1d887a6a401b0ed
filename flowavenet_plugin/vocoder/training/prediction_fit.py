"""A linear prediction fitted to recordings in closed form: what minutes of gradient descent find, in seconds.

The network that tells the spectrum of each block has a way past its hidden layers, a linear map of the features of
three frames. That is solved for, with the hidden layers left out: a regression of each block's log-spectrum on the
features, by ridge regression over all frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from flowavenet_plugin.flow.prediction import FLOOR
from flowavenet_plugin.flow.prediction_matrices import BINS
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.inversion.pieces import working_dtype

#: By which the mean logarithm of a periodogram is below that of the spectrum: Euler's constant, in nats.
EULER = 0.5772156649
#: Weight of the penalty on the regression's coefficients, per frame.
RIDGE = 1e-3


class PredictionFit:
    """Collects what the regression needs, and solves it."""

    def __init__(self, vocoder: AbsVocoder, n_fft: int) -> None:
        """Begin.

        Args:
            vocoder: With a linear prediction, and the statistics of its features.
            n_fft: Size of the Fourier transform of the features in samples, about that of the spectra here.
        """
        self._vocoder, self._prediction = vocoder, vocoder.prediction
        self._n_fft = max(2 * (BINS - 1), 1 << (n_fft - 1).bit_length())  # bins of it are those of the prediction
        width = 3 * vocoder.n_mels + 1
        self._gram = torch.zeros(width, width, dtype=torch.float64)
        self._moments = torch.zeros(width, self._prediction.blocks * BINS, dtype=torch.float64)
        #: Frames so far.
        self.frames = 0

    @torch.no_grad()
    def add(self, wav: Tensor, feats: Tensor) -> None:
        """Take a recording.

        Args:
            wav: Shape (samples,), with (frames - 1) * hop_length <= samples <= frames * hop_length.
            feats: Un-normalised features, shape (frames, n_mels).
        """
        prediction, count = self._prediction, len(feats)
        like = self._vocoder.feats_mean
        wav, feats = (part.to(like.device, working_dtype(like)) for part in (wav, feats))
        cond = self._vocoder.normalize(feats).to(feats)
        before, after = torch.cat([cond[:1], cond[:-1]]), torch.cat([cond[1:], cond[-1:]])
        rows = torch.cat([before, cond, after, torch.ones_like(cond[:, :1])], dim=1).double().cpu()
        places = ((torch.arange(prediction.blocks) + 0.5) / prediction.blocks)[:, None].to(feats)
        following = torch.cat([feats[1:], feats[-1:]])
        # Below the floor, which the prediction adds, there is nothing to explain: digital silence counts as explained.
        told = (torch.lerp(feats[:, None], following[:, None], places) @ prediction._bands.to(feats)).clamp(
            min=math.log(FLOOR)
        )
        rest = (self._log_spectra(wav, count) - told).flatten(1).double().cpu()
        self._gram += rows.T @ rows
        self._moments += rows.T @ rest
        self.frames += count

    @torch.no_grad()
    def solve(self) -> None:
        """Set the prediction's weights.

        Raises:
            ValueError: If there was no frame.
        """
        if not self.frames:
            raise ValueError("there is no recording to fit a linear prediction to")
        penalty = RIDGE * self.frames * torch.eye(len(self._gram), dtype=torch.float64)
        penalty[-1, -1] = 0.0
        solved = torch.linalg.solve(self._gram + penalty, self._moments)
        out = self._prediction.out
        out.weight[:, -(len(solved) - 1) :] = solved[:-1].T.to(out.weight)
        out.bias.copy_(solved[-1])

    def _log_spectra(self, wav: Tensor, frames: int) -> Tensor:
        """Return the natural log of the power per sample around each block's middle, shape (frames, blocks, BINS)."""
        prediction, n_fft = self._prediction, self._n_fft
        window = torch.hann_window(n_fft).to(wav)
        size = frames * prediction.hop_length
        before = n_fft // 2 - prediction.block // 2  # windows are centred on the blocks
        padded = torch.nn.functional.pad(wav, (before, n_fft + size - len(wav)))
        pieces = padded.unfold(0, n_fft, prediction.block)[: frames * prediction.blocks]
        power = torch.fft.rfft(pieces * window).abs().square() / window.square().sum()
        power = power[:, :: n_fft // 2 // (BINS - 1)].log() + EULER
        return power.clamp(min=math.log(FLOOR)).view(frames, prediction.blocks, BINS)


def fit_prediction(vocoder: AbsVocoder, recordings: Iterable[tuple[Tensor, Tensor]], n_fft: int) -> int:
    """Fit a vocoder's linear prediction to recordings; returns the number of their frames.

    Args:
        vocoder: With a linear prediction, and the statistics of its features.
        recordings: Waveform and features of each, see :meth:`PredictionFit.add`.
        n_fft: Size of the Fourier transform of the features in samples.

    Raises:
        ValueError: If there is no recording.
    """
    fit = PredictionFit(vocoder, n_fft)
    for wav, feats in recordings:
        fit.add(wav, feats)
    fit.solve()
    return fit.frames
