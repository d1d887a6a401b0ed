"""Refinement as a step after a vocoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import arithmetic, own_arithmetic
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.checks import as_feats, as_items
from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis
from flowavenet_plugin.vocoder.inversion.pieces import Tables
from flowavenet_plugin.vocoder.inversion.refinement import check_iterations, refine
from flowavenet_plugin.vocoder.inversion.session import CONTEXT, RefinementSession
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.level import heard


class RefinedVocoder(AbsVocoder):
    """A vocoder whose sounds are brought nearer to their features, see :mod:`vocoder.inversion.refinement`.

    All but the sound is the vocoder's own: what isn't here is looked up there.
    """

    exact_stream = False

    def __init__(self, vocoder: AbsVocoder, iterations: int) -> None:
        """Wrap a vocoder.

        Args:
            vocoder: A loaded vocoder.
            iterations: See :func:`refine`.

        Raises:
            ValueError: If sounds can't be refined for its features.
        """
        super().__init__(vocoder.fs, vocoder.hop_length, vocoder.n_mels)
        self.set_features(vocoder.feats_extract, vocoder.feats_extract_conf)
        self.refine = check_iterations(iterations)
        del self.feats_mean, self.feats_std  # the vocoder's are found by __getattr__
        self.vocoder, self.training = vocoder, vocoder.training
        feature_settings(self.feats_extract, self.feats_extract_conf)
        self._tables = Tables(self._make_tables)

    def _make_tables(self) -> FeatureAnalysis:
        return FeatureAnalysis(feature_settings(self.feats_extract, self.feats_extract_conf))

    def __getattr__(self, name: str) -> Any:
        """Look up what this class doesn't have at the vocoder.

        Raises:
            AttributeError: If it doesn't have it, either.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "vocoder" or name.startswith("__"):  # how it is copied and pickled is its own business
                raise
            return getattr(self.vocoder, name)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the vocoder's own: a refined voice is saved like any other."""
        return self.vocoder.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the vocoder's own."""
        return self.vocoder.load_state_dict(*args, **kwargs)

    @property
    def training_only(self) -> Sequence[str]:
        """The vocoder's own."""
        return self.vocoder.training_only

    @property
    def _analysis(self) -> FeatureAnalysis:
        return self._tables.like(self.feats_mean)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.feats_mean.device

    @property
    def temperature(self) -> float:
        """The vocoder's own."""
        return self.vocoder.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.vocoder.temperature = value

    @property
    def checks(self) -> bool:
        """The vocoder's own switch."""
        return self.vocoder.checks

    @checks.setter
    def checks(self, value: bool) -> None:
        self.vocoder.checks = value

    @property
    def checks_itself(self) -> bool:
        """Whether the vocoder looks at its features by itself."""
        return self.vocoder.checks_itself

    @property
    def cuda_graphs(self) -> bool:
        """The vocoder's own switch."""
        return getattr(self.vocoder, "cuda_graphs", False)

    @cuda_graphs.setter
    def cuda_graphs(self, value: bool) -> None:
        self.vocoder.cuda_graphs = value

    @property
    def look_ahead(self) -> int:
        """Frames that :meth:`stream` waits for, besides those that fill up its chunk."""
        return self.vocoder.look_ahead + CONTEXT

    def loudness(self, feats: Tensor) -> float | None:
        """See :meth:`AbsVocoder.loudness`."""
        return self.vocoder.loudness(feats)

    def aim(self, feats: Tensor) -> Tensor:
        """The vocoder's own."""
        return self.vocoder.aim(feats)

    def aims(self) -> Any:
        """The vocoder's own."""
        return self.vocoder.aims()

    def for_inference(self, dtype: torch.dtype | None = None) -> None:
        """See :meth:`AbsVocoder.for_inference`."""
        self.vocoder.for_inference(dtype)

    def loss(
        self, wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The vocoder's own: refinement isn't trained."""
        return self.vocoder.loss(wav, feats, wav_lengths, feats_lengths)

    def log_likelihood(self, wav: Tensor, feats: Tensor) -> Tensor:
        """The vocoder's own: refined sound has none."""
        return self.vocoder.log_likelihood(wav, feats)

    @torch.no_grad()
    def inference(self, feats: Tensor | np.ndarray, *args: Any, **options: Any) -> Tensor:
        """Turn features into sound, and refine it; arguments as of the vocoder's."""
        wav = self.vocoder.inference(feats, *args, **options)
        return self._refined([as_feats(feats, self.n_mels, self.feats_mean)], [wav])[0]

    @torch.no_grad()
    def inference_batch(self, feats: Iterable[Tensor | np.ndarray], *args: Any, **options: Any) -> list[Tensor]:
        """Turn several utterances into sound at once, and refine them; arguments as of the vocoder's."""
        feats = as_items("the features", feats)
        wavs = self._own("inference_batch")(feats, *args, **options)
        return self._refined([as_feats(item, self.n_mels, self.feats_mean) for item in feats], wavs) if feats else []

    @own_arithmetic
    def _refined(self, feats: list[Tensor], wavs: list[Tensor]) -> list[Tensor]:
        frames, analysis = [len(item) for item in feats], self._analysis
        feats = [self.aim(item) for item in feats]
        parts = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (feats, wavs))
        feats, wav = (part.to(analysis.dtype) for part in parts)
        wav = refine(analysis, wav, feats, self.refine, analysis.layout(frames))
        sounds = [item[: count * self.hop_length].to(wavs[0]) for item, count in zip(wav, frames, strict=True)]
        return [heard(self, sound) for sound in sounds]

    @torch.no_grad()
    def stream(self, feats: Iterable[Tensor | np.ndarray], *args: Any, **options: Any) -> Iterator[Tensor]:
        """Turn features into sound while they arrive, and refine it; arguments as of the vocoder's.

        Each piece is refined with some frames before and after it: the sound isn't :meth:`inference`'s sample by
        sample, but its mel-spectrogram is as near to the features.

        Yields:
            Sound, shape (samples,), whenever there is more of it.
        """
        session, arrived, waiting = RefinementSession(self._analysis, self.refine), [], []
        aims = self.aims()

        def watched() -> Iterator[Tensor]:
            for piece in feats:
                if getattr(piece, "shape", (1,))[:1] != (0,):
                    piece = as_feats(piece, self.n_mels, self.feats_mean)
                    arrived.append(piece if aims is None else aims.push(piece, final=False).feats)
                    yield piece
            if aims is not None and arrived:
                arrived.append(aims.push(arrived[0][:0], final=True).feats)

        def refined(final: bool) -> Tensor:
            known, wav = torch.cat(arrived), torch.cat(waiting)
            ready = len(wav) // self.hop_length
            arrived[:], waiting[:] = [known[ready:]], [wav[ready * self.hop_length :]]
            now = (known[:ready], wav[: ready * self.hop_length])
            with arithmetic(self.device):
                return session.push(*(part.to(self._analysis.dtype) for part in now), final).to(self.feats_mean)

        for wav in self._own("stream")(watched(), *args, **options):
            waiting.append(wav)
            if len(made := refined(final=False)):
                yield heard(self, made)
        yield heard(self, refined(final=True))

    def _own(self, name: str) -> Any:
        """Return a method of the vocoder.

        Raises:
            ValueError: If it has none of this name.
        """
        if not hasattr(self.vocoder, name):
            raise ValueError(f"{type(self.vocoder).__name__} has no {name}()")
        return getattr(self.vocoder, name)


def with_refinement(vocoder: AbsVocoder, iterations: int) -> AbsVocoder:
    """Return the vocoder itself, or refined.

    Args:
        vocoder: A loaded vocoder.
        iterations: How often; 0: not at all.

    Raises:
        ValueError: If the number is impossible, or sounds can't be refined for its features.
    """
    return RefinedVocoder(vocoder, iterations) if check_iterations(iterations) else vocoder
