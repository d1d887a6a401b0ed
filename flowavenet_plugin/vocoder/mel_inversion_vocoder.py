"""A vocoder without weights: what a mel-spectrogram tells, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import arithmetic, own_arithmetic
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.checks import as_noise, check_temperature
from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis
from flowavenet_plugin.vocoder.inversion.pieces import Tables, in_chunks
from flowavenet_plugin.vocoder.inversion.refinement import check_iterations, refine
from flowavenet_plugin.vocoder.inversion.session import CONTEXT, RefinementSession
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.inversion.start import PITCH_CONTEXT, Start, StartSession
from flowavenet_plugin.vocoder.level import heard, taken, taken_batch, taken_pieces
from flowavenet_plugin.vocoder.noise import NoiseSource, first_phase

#: Counted up when the same seed begins to give another sound: tables made with an earlier one are then made anew.
VERSION = 2


class MelInversionVocoder(AbsVocoder):
    """Pulses at the pitch that the mel tells, noise, and iterations that make the sound's mel what it should be.

    There is nothing to train. It works for all features of this package; which, loading tells it, or
    :meth:`set_features`.

    Example:
        >>> vocoder = MelInversionVocoder(fs=16000, hop_length=256, n_mels=80, iterations=2)
        >>> vocoder.inference(torch.full((5, 80), -2.0), seed=1).shape
        torch.Size([1280])
    """

    checks_itself = True
    changeable = ("temperature", "iterations")
    trainable = False
    exact_stream = False

    def __init__(self, fs: int, hop_length: int, n_mels: int, iterations: int = 32, temperature: float = 1.0) -> None:
        """Build the vocoder.

        Args:
            fs: Sampling rate in Hz.
            hop_length: Samples per frame of the features.
            n_mels: Mel bands of the features.
            iterations: Iterations from the start to the sound; more come nearer to the mel.
            temperature: Deviation of the noise at the start, from 0; the mel tells how loud it is in the end.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(fs, hop_length, n_mels)
        self._tables = Tables(self._make_tables)
        self.iterations, self.temperature = check_iterations(iterations), check_temperature(temperature)

    def set_features(self, kind: str, conf: Mapping[str, Any]) -> None:
        """Tell how the features are made; see :meth:`AbsVocoder.set_features`.

        Raises:
            ValueError: If sound can't be made of such features.
        """
        feature_settings(kind, conf)
        super().set_features(kind, conf)
        self._tables = Tables(self._make_tables)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.feats_mean.device

    @property
    def look_ahead(self) -> int:
        """Frames that :meth:`stream` waits for, besides those that fill up its chunk."""
        return PITCH_CONTEXT + self._start().margin + CONTEXT + 1  # in_chunks keeps one back: it may be the last

    def loss(
        self, wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Refuse: there is nothing to train.

        Raises:
            ValueError: Always.
        """
        raise ValueError("mel_inversion has no weights: there is nothing to train, it speaks as it is")

    @torch.no_grad()
    def inference(
        self,
        feats: Tensor | np.ndarray,
        temperature: float | None = None,
        seed: int | Sequence[int] | None = None,
        noise: Tensor | np.ndarray | None = None,
    ) -> Tensor:
        """Turn features into sound.

        Args:
            feats: Un-normalised features, shape (frames, n_mels).
            temperature: Deviation of the noise at the start; default: the constructor's for noise that is drawn here,
                1 for noise that is given.
            seed: Seed of the noise and of the first phase of the pulses. The same seed gives the same waveform.
                Default: from torch's global generator.
            noise: The noise itself, standard normal, shape (frames * hop_length,); the pulses begin at phase 0.

        Returns:
            Waveform, amplitude in about [-1, 1], shape (frames * hop_length,).

        Raises:
            ValueError: If a shape or the temperature is impossible, both seed and noise are given, or
                ``checks`` refuses.
        """
        if noise is None:
            return self.inference_batch([feats], temperature, [seed])[0]
        feats = taken(self, feats)
        noise = as_noise(noise, len(feats), self.hop_length, seed, feats)
        noise = noise * check_temperature(1.0 if temperature is None else temperature)
        return self._synthesise([feats], [noise], [0.0])[0]

    @torch.no_grad()
    def inference_batch(
        self,
        feats: Iterable[Tensor | np.ndarray],
        temperature: float | None = None,
        seeds: Sequence[int | Sequence[int]] | None = None,
    ) -> list[Tensor]:
        """Turn several utterances into sound at once; each comes out as from :meth:`inference`.

        Args:
            feats: Un-normalised features of each, shape (frames, n_mels).
            temperature: Deviation of the noise; default: the constructor's.
            seeds: Seed of each; default: from torch's global generator.

        Returns:
            Waveform of each, shape (frames * hop_length,); of none, none.

        Raises:
            ValueError: If a shape or the temperature is impossible, there are not as many seeds as utterances, or
                ``checks`` refuses.
        """
        feats, seeds = taken_batch(self, feats, seeds)
        scale = check_temperature(self.temperature if temperature is None else temperature)
        sources = [NoiseSource(seed) for seed in seeds]
        phases = [first_phase(source) for source in sources]
        sizes = [len(item) * self.hop_length for item in feats]
        noise = [scale * source.draw(size).to(item) for source, size, item in zip(sources, sizes, feats, strict=True)]
        return self._synthesise(feats, noise, phases) if feats else []

    @own_arithmetic
    def _synthesise(self, feats: list[Tensor], noise: list[Tensor], phases: list[float]) -> list[Tensor]:
        frames, start = [len(item) for item in feats], self._start()
        padded, drawn = (
            torch.nn.utils.rnn.pad_sequence(part, batch_first=True).to(start.dtype) for part in (feats, noise)
        )
        phase = torch.tensor(phases, dtype=torch.float64, device=padded.device)[:, None]
        wav = start(padded, frames, drawn, phase)
        wav = refine(start.analysis, wav, padded, self.iterations, start.analysis.layout(frames))
        sounds = [item[: count * self.hop_length].to(feats[0]) for item, count in zip(wav, frames, strict=True)]
        return [heard(self, sound) for sound in sounds]

    @torch.no_grad()
    def stream(
        self,
        feats: Iterable[Tensor | np.ndarray],
        temperature: float | None = None,
        seed: int | Sequence[int] | None = None,
        chunk_frames: int = 32,
    ) -> Iterator[Tensor]:
        """Turn features into sound while they arrive.

        A frame is heard once ``look_ahead`` frames more have arrived, and those that fill up its chunk. Pitch and
        iterations see a limited number of frames, so that the sound isn't :meth:`inference`'s sample by sample; its
        mel-spectrogram is as near to the features.

        Args:
            feats: Un-normalised features in pieces of any size, shape (frames_i, n_mels).
            temperature: As in :meth:`inference`.
            seed: As in :meth:`inference`.
            chunk_frames: Frames computed at once, from 1; the context is computed for each chunk anew.

        Yields:
            Sound, shape (samples,), whenever there is more of it.

        Raises:
            ValueError: If a shape, the temperature or ``chunk_frames`` is impossible, no frame arrives, or ``checks``
                refuses.
        """
        scale = check_temperature(self.temperature if temperature is None else temperature)
        start = self._start()
        first = StartSession(start, NoiseSource(seed), scale)
        second = RefinementSession(start.analysis, self.iterations)
        for piece, final in in_chunks(taken_pieces(self, feats), chunk_frames):
            with arithmetic(self.device):
                wav = second.push(*first.push(piece.to(start.dtype), final), final)
            if len(wav):
                yield heard(self, wav.to(self.feats_mean))

    @torch.no_grad()
    @own_arithmetic
    def loudness(self, feats: Tensor) -> float:
        """See :meth:`AbsVocoder.loudness`."""
        analysis = self._start().analysis
        return analysis.loudness(feats.to(analysis.device, analysis.dtype))

    def _make_tables(self) -> Start:
        return Start(FeatureAnalysis(feature_settings(self.feats_extract, self.feats_extract_conf)))

    def _start(self) -> Start:
        """Return what makes the sound."""
        return self._tables.like(self.feats_mean)
