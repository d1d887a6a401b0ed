"""FloWaveNet as a vocoder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic
from flowavenet_plugin.flow.settings import takes
from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.vocoder.checks import as_noise, check_temperature
from flowavenet_plugin.vocoder.flow_model import FlowModel
from flowavenet_plugin.vocoder.inversion.pieces import in_chunks, working_dtype
from flowavenet_plugin.vocoder.inversion.pitch import Pitch
from flowavenet_plugin.vocoder.inversion.start import PITCH_CONTEXT
from flowavenet_plugin.vocoder.level import heard, taken, taken_batch, taken_pieces
from flowavenet_plugin.vocoder.noise import NoiseSource, first_phase
from flowavenet_plugin.vocoder.pickling import copied, reduced
from flowavenet_plugin.vocoder.reading import Reading
from flowavenet_plugin.vocoder.settings import VocoderSettings
from flowavenet_plugin.vocoder.source import at
from flowavenet_plugin.vocoder.source.session import SourceSession
from flowavenet_plugin.vocoder.streaming import Synthesis


@takes(VocoderSettings, "fs", "hop_length", "n_mels")
class FloWaveNetVocoder(FlowModel):
    """Un-normalised mel-spectrogram in, waveform out, by inverting a :class:`FloWaveNet`; defaults are the paper's.

    Features may be tensors or NumPy arrays of any real type, on any device; sound is a tensor of the type and on the
    device of the weights. What the caller has set in PyTorch (autocast, inference mode, default type, current device)
    changes nothing, see :mod:`flowavenet_plugin.flow.arithmetic`; only :meth:`loss` lets its WaveNets run in autocast's
    type. Several threads may make sound at the same time.
    """

    checks_itself = True

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
        super().__init__(fs, hop_length, n_mels, **settings)
        #: Whether whole utterances are synthesised by CUDA graphs on a GPU, see :mod:`flow.synthesis.graphs`.
        self.cuda_graphs = False
        self.exact_stream = self.settings.source == "noise"  # the pitch is read with some context only

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
            noise: The noise itself, standard normal, shape (frames * hop_length,); pulses begin at phase 0.
            dtype: Precision inside the WaveNets, see :meth:`prepare`.

        Returns:
            Waveform, amplitude in about [-1, 1], shape (frames * hop_length,).

        Raises:
            ValueError: If a shape or the temperature is impossible, both seed and noise are given, or
                ``checks`` refuses.
        """
        if noise is None:
            return self.inference_batch([feats], temperature, [seed], dtype)[0]
        feats = taken(self, feats)
        noise = as_noise(noise, len(feats), self.hop_length, seed, feats)
        scale = check_temperature(1.0 if temperature is None else temperature)
        return self._synthesise([feats], [noise], [0.0], scale, dtype)[0]

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
        sources = [NoiseSource(seed) for seed in seeds]
        phases = [0.0 if self.exact_stream else first_phase(source) for source in sources]
        noise = [source.draw(len(item) * self.hop_length).to(item) for source, item in zip(sources, feats, strict=True)]
        return self._synthesise(feats, noise, phases, scale, dtype)

    def stream(
        self,
        feats: Iterable[Tensor | np.ndarray],
        temperature: float | None = None,
        seed: int | Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        chunk_frames: int = 32,
    ) -> Iterator[Tensor]:
        """Turn features into sound while they arrive; joined, it is what :meth:`inference` makes of all of them.

        Frame i is heard once ``look_ahead`` frames more have arrived, those that fill up its chunk, and one, since the
        last is another. Memory doesn't grow with the length. Where the source is pulses, the pitch is read with some
        frames of context, so that the whole's may differ here and there. There, and where a network reads the
        features, two chunks are filled up, one before the flow.

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
        noise, source = NoiseSource(seed), self.tables().source
        pieces = ((piece, False, None) for piece in taken_pieces(self, feats))
        if source is not None or self.reader is not None:
            pieces = ((*chunk, None) for chunk in in_chunks(taken_pieces(self, feats), chunk_frames))
        if self.reader is not None:
            pieces = self._read(pieces)
        latents = ((piece, None) for piece, _, _ in pieces)
        if source is not None:
            session = SourceSession(source, first_phase(noise), self.reader)
            latents = (session.push(*piece) for piece in pieces)
        synthesis = Synthesis(self.prepare(dtype), self.prediction, noise, scale, chunk_frames)
        for piece, latent in latents:
            yield from (heard(self, wav) for wav in synthesis.push(piece, self.normalize(piece), latent))
        yield from (heard(self, wav) for wav in synthesis.finish())

    def _read(self, pieces: Iterable[tuple[Tensor, bool, None]]) -> Iterator[tuple[Tensor, bool, Tensor]]:
        """Read chunks, and say of each whether it is the last; with what is said of the pitch."""
        session = self.aims()
        for chunk, final, _ in pieces:
            reading = session.push(chunk, final)
            if len(reading.feats):
                yield reading.feats, final, reading.pitch

    @own_arithmetic
    @torch.no_grad()
    def pitch(self, feats: Tensor | np.ndarray) -> Pitch:
        """Return the pitch that the pulses of features (frames, n_mels) have, shapes (frames,).

        Raises:
            ValueError: If the source is noise, or features are refused.
        """
        if self.tables().source is None:
            raise ValueError("this vocoder's source is noise: it reads no pitch")
        feats = taken(self, feats)[None]
        reading = Reading(feats, None) if self.reader is None else self.read(feats, [feats.shape[1]])
        return Pitch(*(part[0] for part in self._pitch(reading, [feats.shape[1]])))

    def _pitch(self, reading: Reading, frames: list[int]) -> Pitch:
        if self.reader is None:
            return self.tables().source.read(reading.feats.to(working_dtype(reading.feats)), frames)
        return self.reader.path(reading.pitch, frames)

    @property
    def look_ahead(self) -> int:
        """Frames after a frame that its sound may depend on."""
        reach = self.flow.column - 1 if self.settings.causal else self.flow.receptive_field
        reach = math.ceil(reach / self.hop_length) + self.flow.upsampler.reach
        if self.exact_stream and self.reader is None:
            return reach
        reach += 0 if self.reader is None else self.reader.reach
        return reach + (0 if self.exact_stream else PITCH_CONTEXT) + 1  # in_chunks keeps one back: it may be the last

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
        self.adversary = None
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
        settings = dataclasses.asdict(self.settings)
        return reduced(self, {name: value for name, value in settings.items() if name != "n_mels"})

    def __deepcopy__(self, memo: dict[int, Any]) -> FloWaveNetVocoder:
        return copied(self, memo)

    def train(self, mode: bool = True) -> FloWaveNetVocoder:
        """Switch between training and evaluation; training forgets what :meth:`prepare` made."""
        if mode:
            self._folded.need_originals("train")
            self._folded.forget()
        return super().train(mode)

    def _synthesise(
        self,
        feats: list[Tensor],
        noise: list[Tensor],
        phases: list[float],
        temperature: float,
        dtype: torch.dtype | None,
    ) -> list[Tensor]:
        """Turn features (frames, n_mels), standard normal noise (samples,) and first phases of pulses into sound."""
        frames = [len(item) for item in feats]
        sizes = [count * self.hop_length for count in frames]
        padded = torch.nn.utils.rnn.pad_sequence(feats, batch_first=True)
        drawn = torch.nn.utils.rnn.pad_sequence(noise, batch_first=True)
        lengths = None if min(sizes) == max(sizes) else torch.tensor(sizes, device=padded.device)
        source, latent = self.tables().source, None
        reading = Reading(padded, None) if self.reader is None else self.read(padded, frames)
        padded = reading.feats
        if source is not None:
            phase = torch.tensor(phases, dtype=torch.float64, device=padded.device)[:, None]
            latent, _ = source.of_pitch(self._pitch(reading, frames), phase)
        drawn, cond = at(latent, drawn, temperature).to(padded), self.normalize(padded)
        wav = self._inverse(dtype)(drawn[:, None], cond.mT, lengths)[:, 0]
        if self.prediction is not None:
            wav = self.prediction.inverse(wav, padded, cond, lengths)
        return [heard(self, item[:size]) for item, size in zip(wav, sizes, strict=True)]
