"""FloWaveNet as a vocoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder


class FloWaveNetVocoder(AbsVocoder):
    """Un-normalised mel-spectrogram in, waveform out, by inverting a :class:`FloWaveNet`; defaults are the paper's."""

    def __init__(
        self,
        fs: int,
        hop_length: int,
        n_mels: int,
        n_block: int = 8,
        n_flow: int = 6,
        n_layer: int = 2,
        filter_size: int = 256,
        kernel_size: int = 3,
        block_per_split: int = 4,
        affine: bool = True,
        causal: bool = False,
        upsample_scales: Sequence[int] = (16, 16),
        temperature: float = 0.8,
    ) -> None:
        """Build the vocoder.

        Args:
            fs: Sampling rate in Hz.
            hop_length: Samples per frame of the features.
            n_mels: Mel bands of the features.
            n_block: See :class:`FloWaveNet`, as for the arguments up to ``upsample_scales``.
            n_flow: Flow steps per block.
            n_layer: Dilated layers per WaveNet.
            filter_size: Channels of the WaveNets.
            kernel_size: Taps of their dilated convolutions.
            block_per_split: Blocks between two splits.
            affine: Affine couplings, else additive.
            causal: WaveNets reach to the past only.
            upsample_scales: Their product must be ``hop_length``.
            temperature: Standard deviation of the noise that :meth:`inference` draws, from 0.

        Raises:
            ValueError: If the upsampling doesn't give ``hop_length`` samples per frame, or a size is out of range.
        """
        super().__init__(fs, hop_length, n_mels)
        if math.prod(upsample_scales) != hop_length:
            raise ValueError(
                f"upsample_scales {list(upsample_scales)} give {math.prod(upsample_scales)} samples per frame, "
                f"but the features' hop_length is {hop_length}"
            )
        self.temperature = _check_temperature(temperature)
        self.flow = FloWaveNet(
            n_mels=n_mels,
            n_block=n_block,
            n_flow=n_flow,
            n_layer=n_layer,
            filter_size=filter_size,
            kernel_size=kernel_size,
            block_per_split=block_per_split,
            affine=affine,
            causal=causal,
            upsample_scales=upsample_scales,
        )

    def loss(
        self, wav: Tensor, feats: Tensor, wav_lengths: Tensor, feats_lengths: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the negative log-likelihood per sample in nats, averaged over all samples of the batch.

        Arguments and return values as in :meth:`AbsVocoder.loss`; the weight is the number of samples.

        Raises:
            ValueError: If an item's waveform and features don't fit each other.
        """
        self._check_lengths(wav_lengths, feats_lengths)
        size = feats.shape[1] * self.hop_length
        x = F.pad(wav, (0, size - wav.shape[1]))[:, None]  # (B, 1, frames * hop_length); a negative pad cuts
        full = bool((wav_lengths == size).all())
        noise, logdet = self.flow(x, self._condition(feats), None if full else wav_lengths)
        count = wav_lengths.sum()
        log_p = -0.5 * noise.square().sum() / count - 0.5 * math.log(2 * math.pi)
        logdet = logdet.sum() / count
        loss = -(log_p + logdet)
        stats = dict(loss=loss, log_likelihood=-loss, log_p=log_p, logdet=logdet)
        return loss, {name: value.detach() for name, value in stats.items()}, count.to(loss.dtype)

    @torch.no_grad()
    def inference(
        self,
        feats: Tensor,
        temperature: float | None = None,
        seed: int | Sequence[int] | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Turn features into sound.

        Args:
            feats: Un-normalised features, shape (frames, n_mels).
            temperature: Standard deviation of the noise, from 0; 1 samples from the model, less is quieter and
                cleaner. Default: the constructor's for noise that is drawn here, 1 for noise that is given.
            seed: Seed of the noise: a whole number from 0, or a sequence of them. The same seed gives the same
                waveform on the same device. Default: from torch's global generator.
            noise: The noise itself, standard normal, shape (frames * hop_length,).

        Returns:
            Waveform, amplitude in about [-1, 1], shape (frames * hop_length,).

        Raises:
            ValueError: If a shape or the temperature is impossible, or both seed and noise are given.
        """
        self._check_feats(feats)
        size = feats.shape[0] * self.hop_length
        if noise is None:
            noise = self._draw(size, seed).to(feats)
            temperature = self.temperature if temperature is None else temperature
        elif seed is not None:
            raise ValueError(f"give seed or noise, not both: seed={seed}")
        elif tuple(noise.shape) != (size,):
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}, but {feats.shape[0]} frames of {self.hop_length} samples "
                f"need ({size},)"
            )
        noise = noise.to(feats) * _check_temperature(1.0 if temperature is None else temperature)
        return self.flow.inverse(noise[None, None], self._condition(feats[None]))[0, 0]

    @torch.no_grad()
    def log_likelihood(self, wav: Tensor, feats: Tensor) -> Tensor:
        """Return log p(wav | feats) in nats per sample, 0-dim.

        Args:
            wav: Waveform, amplitude in [-1, 1], shape (samples,), with (frames - 1) * hop_length <= samples <=
                frames * hop_length.
            feats: Un-normalised features, shape (frames, n_mels).

        Raises:
            ValueError: If the waveform doesn't fit the features.
        """
        self._check_feats(feats)
        samples, frames = torch.tensor(wav.shape), torch.tensor(feats.shape[:1])
        if wav.dim() != 1:
            raise ValueError(f"expected a waveform of shape (samples,), got {tuple(wav.shape)}")
        stats = self.loss(wav[None].to(feats), feats[None], samples.to(feats.device), frames.to(feats.device))[1]
        return stats["log_likelihood"]

    def _condition(self, feats: Tensor) -> Tensor:
        return self.normalize(feats).transpose(1, 2)  # (B, n_mels, frames)

    @staticmethod
    def _draw(size: int, seed: int | Sequence[int] | None) -> Tensor:
        if seed is None:
            return torch.randn(size)
        # numpy's stream doesn't depend on how it is cut into pieces, nor on the device.
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(size, dtype=np.float32))

    def _check_feats(self, feats: Tensor) -> None:
        if feats.dim() != 2 or feats.shape[1] != self.n_mels or feats.shape[0] == 0:
            raise ValueError(f"expected features of shape (frames, {self.n_mels}), got {tuple(feats.shape)}")
        if not torch.isfinite(feats).all():
            raise ValueError("the features hold values that are not finite")

    def _check_lengths(self, wav_lengths: Tensor, feats_lengths: Tensor) -> None:
        whole = feats_lengths * self.hop_length
        wrong = (wav_lengths > whole) | (wav_lengths < whole - self.hop_length) | (wav_lengths < 1)
        if wrong.any():
            i = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"{int(wav_lengths[i])} samples don't fit {int(feats_lengths[i])} frames of {self.hop_length} samples"
            )


def _check_temperature(temperature: float) -> float:
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be a number from 0, not {temperature}")
    return float(temperature)
