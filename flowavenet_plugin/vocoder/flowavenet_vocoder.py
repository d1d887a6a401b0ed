"""FloWaveNet as a vocoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import full_precision, own_arithmetic, usable
from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.flow.settings import VocoderSettings, takes
from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.checks import as_noise, as_waveform, check_temperature, sample_counts
from flowavenet_plugin.vocoder.folded import FoldedWeights
from flowavenet_plugin.vocoder.level import heard, taken, taken_batch, taken_pieces
from flowavenet_plugin.vocoder.pickling import copied, reduced
from flowavenet_plugin.vocoder.streaming import NoiseSource, Synthesis


@takes(VocoderSettings, "fs", "hop_length", "n_mels")
class FloWaveNetVocoder(AbsVocoder):
    """Un-normalised mel-spectrogram in, waveform out, by inverting a :class:`FloWaveNet`; defaults are the paper's.

    Features may be tensors or NumPy arrays of any real type, on any device; sound is a tensor of the type and on the
    device of the weights. What the caller has set in PyTorch (autocast, inference mode, default type, current device)
    changes nothing, see :mod:`flowavenet_plugin.flow.arithmetic`; only :meth:`loss` lets its WaveNets run in autocast's
    type. Several threads may make sound at the same time.
    """

    state_is_whole = True
    checks_itself = True
    changeable = ("temperature", "reversible")

    def __init__(self, fs: int, hop_length: int, n_mels: int, **settings: Any) -> None:
        """Build the vocoder.

        Args:
            fs: Sampling rate in Hz.
            hop_length: Samples per frame of the features.
            n_mels: Mel bands of the features.
            settings: Of :class:`VocoderSettings`.

        Raises:
            ValueError: If the scales don't make ``hop_length``, or a size is out of range.
        """
        super().__init__(fs, hop_length, n_mels)
        given = VocoderSettings(n_mels=n_mels, **settings)
        if given.hop_length != hop_length:
            raise ValueError(
                f"upsample_scales {list(given.upsample_scales)} give {given.hop_length} samples per frame, but the "
                f"features' hop_length is {hop_length}"
            )
        self._settings, self._folded = settings, FoldedWeights()
        #: Whether whole utterances are synthesised by CUDA graphs on a GPU, see :mod:`flow.synthesis.graphs`.
        self.cuda_graphs = False
        self._causal = given.causal
        self.prediction = None
        if given.prediction_order != 0:
            sizes = fs, hop_length, n_mels, given.prediction_order, given.prediction_channels
            self.prediction = LinearPrediction(*sizes, (given.mel_range[0], given.mel_range[1]))
        self.temperature = check_temperature(given.temperature)
        self.flow = FloWaveNet(**given.flow)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.feats_mean.device

    @own_arithmetic
    def loss(
        self, wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the negative log-likelihood per sample in nats, averaged over all samples of the batch.

        Arguments and return values as in :meth:`AbsVocoder.loss`; the weight is the number of samples.

        Raises:
            ValueError: If an item's waveform and features don't fit each other (seen for lengths on the CPU only), or
                :meth:`for_inference` was called.
        """
        self._folded.need_originals("train or to score with")
        wav, feats, size = usable(wav), usable(feats), feats.shape[1] * self.hop_length
        wav_lengths, whole = sample_counts(wav, feats, wav_lengths, feats_lengths, self.hop_length)
        x = F.pad(wav, (0, size - wav.shape[1]))[:, None]  # (B, 1, frames * hop_length); a negative pad cuts
        lengths, cond, outer = None if whole else wav_lengths, self.normalize(feats), 0.0
        if self.prediction is not None:
            x, outer = self.prediction(x[:, 0], feats, cond, lengths)
            x = x[:, None]
        noise, logdet = self.flow(x, cond.transpose(1, 2), lengths)
        logdet, count = logdet + outer, wav_lengths.sum()
        log_p = -0.5 * noise.square().sum() / count - 0.5 * math.log(2 * math.pi)
        logdet = logdet.sum() / count
        loss = -(log_p + logdet)
        stats = dict(loss=loss, log_likelihood=-loss, log_p=log_p, logdet=logdet)
        return loss, {name: value.detach() for name, value in stats.items()}, count.to(loss.dtype)

    @own_arithmetic
    @torch.no_grad()
    def inference(
        self,
        feats: Tensor | np.ndarray,
        temperature: float | None = None,
        seed: int | Sequence[int] | None = None,
        noise: Tensor | np.ndarray | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Turn features into sound.

        Args:
            feats: Un-normalised features, shape (frames, n_mels).
            temperature: Standard deviation of the noise, from 0; 1 samples from the model, less is quieter and
                cleaner. Default: the constructor's for noise that is drawn here, 1 for noise that is given.
            seed: Seed of the noise: a whole number from 0, or a sequence of them. The same seed gives the same
                waveform on the same device. Default: from torch's global generator.
            noise: The noise itself, standard normal, shape (frames * hop_length,).
            dtype: Precision inside the WaveNets, see :meth:`prepare`.

        Returns:
            Waveform, amplitude in about [-1, 1], shape (frames * hop_length,).

        Raises:
            ValueError: If a shape or the temperature is impossible, both seed and noise are given, or
                ``checks`` refuses.
        """
        feats = taken(self, feats)
        if noise is None:
            noise = NoiseSource(seed).draw(len(feats) * self.hop_length).to(feats)
            temperature = self.temperature if temperature is None else temperature
        else:
            noise = as_noise(noise, len(feats), self.hop_length, seed, feats)
        noise = noise * check_temperature(1.0 if temperature is None else temperature)
        return heard(self, self._synthesise(noise[None], feats[None], None, dtype)[0])

    @own_arithmetic
    @torch.no_grad()
    def inference_batch(
        self,
        feats: Iterable[Tensor | np.ndarray],
        temperature: float | None = None,
        seeds: Sequence[int | Sequence[int]] | None = None,
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """Turn several utterances into sound at once; each comes out as from :meth:`inference`.

        Args:
            feats: Un-normalised features of each, shape (frames, n_mels).
            temperature: Standard deviation of the noise; default: the constructor's.
            seeds: Seed of each; default: from torch's global generator.
            dtype: Precision inside the WaveNets, see :meth:`prepare`.

        Returns:
            Waveform of each, shape (frames * hop_length,); of none, none.

        Raises:
            ValueError: If a shape or the temperature is impossible, there are not as many seeds as utterances, or
                ``checks`` refuses.
        """
        feats, seeds = taken_batch(self, feats, seeds)
        scale = check_temperature(self.temperature if temperature is None else temperature)
        if not feats:
            return []
        sizes = [len(item) * self.hop_length for item in feats]
        noise = [scale * NoiseSource(seed).draw(size).to(feats[0]) for size, seed in zip(sizes, seeds, strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(feats, batch_first=True)
        noise = torch.nn.utils.rnn.pad_sequence(noise, batch_first=True)
        lengths = None if min(sizes) == max(sizes) else torch.tensor(sizes, device=padded.device)
        wavs = self._synthesise(noise, padded, lengths, dtype)
        return [heard(self, wav[:size]) for wav, size in zip(wavs, sizes, strict=True)]

    def stream(
        self,
        feats: Iterable[Tensor | np.ndarray],
        temperature: float | None = None,
        seed: int | Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        chunk_frames: int = 32,
    ) -> Iterator[Tensor]:
        """Turn features into sound while they arrive; joined, it is what :meth:`inference` makes of all of them.

        Frame i is heard once ``look_ahead`` frames more have arrived, and those that fill up its chunk. Memory
        doesn't grow with the length.

        Args:
            feats: Un-normalised features in pieces of any size, shape (frames_i, n_mels).
            temperature: As in :meth:`inference`.
            seed: As in :meth:`inference`.
            dtype: As in :meth:`inference`.
            chunk_frames: Frames computed at once, from 1: fewer are heard earlier but cost more.

        Yields:
            Sound, shape (samples,), whenever there is more of it.

        Raises:
            ValueError: If a shape, the temperature or ``chunk_frames`` is impossible, no frame arrives, or ``checks``
                refuses.
        """
        scale = check_temperature(self.temperature if temperature is None else temperature)
        if chunk_frames < 1:
            raise ValueError(f"chunk_frames must be at least 1, not {chunk_frames}")
        synthesis = Synthesis(self.prepare(dtype), self.prediction, NoiseSource(seed), scale, chunk_frames)
        for piece in taken_pieces(self, feats):
            yield from (heard(self, wav) for wav in synthesis.push(piece, self.normalize(piece)))
        yield from (heard(self, wav) for wav in synthesis.finish())

    @property
    def look_ahead(self) -> int:
        """Frames after a frame that its sound may depend on."""
        reach = self.flow.column - 1 if self._causal else self.flow.receptive_field
        return math.ceil(reach / self.hop_length) + self.flow.upsampler.reach

    def prepare(self, dtype: torch.dtype | None = None) -> PreparedFlow:
        """Fold the weights for inference, unless that is done already; all that makes sound comes here by itself.

        Args:
            dtype: Precision inside the WaveNets, for instance ``torch.bfloat16``; samples always keep the precision
                of the weights. Default: that of the weights, or what :meth:`for_inference` was given.

        Raises:
            ValueError: If the weights are gone and another precision is asked for.
        """
        return self._folded.get(self.flow, dtype)

    def _inverse(self, dtype: torch.dtype | None) -> Callable[..., Tensor]:
        flow = self.prepare(dtype)
        return flow.graphs.inverse if self.cuda_graphs and flow.device.type == "cuda" else flow.inverse

    def for_inference(self, dtype: torch.dtype | None = None) -> None:
        """Fold the weights and free them: half the memory, but neither training, scores nor saving from now on.

        The vocoder stays on the device that it is on, and in its precision.

        Args:
            dtype: As in :meth:`prepare`, for good.
        """
        if self._folded.keep_alone(self.flow, dtype):
            self.register_state_dict_pre_hook(self._folded.refuse_to_save)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FloWaveNetVocoder:
        """Be moved or cast, as all ``to``, ``double``, ``cuda`` ... come here; not once the weights are folded."""
        now, then = self.feats_mean, fn(self.feats_mean.new_empty(0))
        if self._folded.alone and (now.device, now.dtype) != (then.device, then.dtype):
            raise ValueError(
                f"this vocoder is for inference only now, on {now.device} in {now.dtype}: move or cast it (here to "
                f"{then.device} in {then.dtype}) before for_inference()"
            )
        return super()._apply(fn, recurse)

    def __reduce__(self) -> tuple:
        self._folded.need_originals("pickle")
        return reduced(self, self._settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> FloWaveNetVocoder:
        return copied(self, memo)

    def train(self, mode: bool = True) -> FloWaveNetVocoder:
        """Switch between training and evaluation; training forgets what :meth:`prepare` made."""
        if mode:
            self._folded.need_originals("train")
            self._folded.forget()
        return super().train(mode)

    @own_arithmetic
    @torch.no_grad()
    def log_likelihood(self, wav: Tensor | np.ndarray, feats: Tensor | np.ndarray) -> Tensor:
        """Return log p(wav | feats) in nats per sample, 0-dim.

        Args:
            wav: Waveform, amplitude in [-1, 1], shape (samples,), with (frames - 1) * hop_length <= samples <=
                frames * hop_length.
            feats: Un-normalised features, shape (frames, n_mels).

        Raises:
            ValueError: If the waveform doesn't fit the features, or holds integers.
        """
        feats, wav = taken(self, feats), as_waveform(wav, self.feats_mean)
        samples, frames = torch.tensor(wav.shape), torch.tensor(feats.shape[:1])
        with full_precision():
            stats = self.loss(wav[None], feats[None], samples, frames)[1]
        return stats["log_likelihood"]

    def _synthesise(self, noise: Tensor, feats: Tensor, lengths: Tensor | None, dtype: torch.dtype | None) -> Tensor:
        """Turn noise (B, samples) and features (B, frames, n_mels) into sound (B, samples)."""
        cond = self.normalize(feats)
        wav = self._inverse(dtype)(noise[:, None], cond.transpose(1, 2), lengths)[:, 0]
        return wav if self.prediction is None else self.prediction.inverse(wav, feats, cond, lengths)
