"""Sound while features arrive."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic, usable
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.flow.prediction_session import PredictionSession
from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.vocoder.noise import NoiseSource
from flowavenet_plugin.vocoder.source.latent import Latent, at


class Synthesis:
    """Features of one utterance in, sound out, in chunks of equal size."""

    def __init__(
        self,
        flow: PreparedFlow,
        prediction: LinearPrediction | None,
        noise: NoiseSource,
        temperature: float,
        chunk_frames: int,
    ) -> None:
        """Start.

        Args:
            flow: The prepared flow.
            prediction: What turns the flow's output into sound; None: it is the sound.
            noise: Where the noise comes from.
            temperature: Its standard deviation.
            chunk_frames: Frames computed at once.
        """
        self._session, self.device = flow.session(), flow.device
        self._prediction = None if prediction is None else PredictionSession(prediction)
        self._hop, self._chunk = flow.hop_length, chunk_frames
        self._noise, self._temperature = noise, temperature
        # Features, conditioning and, if there is a source, mean and deviation side by side, (frames, n_mels + ...).
        self._waiting: list[Tensor] = []
        self._count = 0

    def push(self, feats: Tensor, cond: Tensor, latent: Latent | None = None) -> Iterator[Tensor]:
        """Take features (frames, n_mels), as they are and standardised, and yield the sound that is ready.

        Args:
            feats: As they are.
            cond: Standardised.
            latent: What the noise is of, shapes (1, frames * hop_length); None: standard normal, always.
        """
        parts = [feats, cond, *(part.to(feats).view(-1, self._hop) for part in latent or ())]
        self._widths = [part.shape[1] for part in parts]
        for piece in torch.cat(parts, dim=1).split(self._chunk):
            self._waiting.append(piece)
            self._count += len(piece)
            while self._count > self._chunk:  # one frame stays at least, as the end must be marked
                waiting = torch.cat(self._waiting)
                self._waiting, self._count = [waiting[self._chunk :]], self._count - self._chunk
                yield from self._run(waiting[: self._chunk], final=False)

    def finish(self) -> Iterator[Tensor]:
        """Yield the rest.

        Raises:
            ValueError: If there were no features.
        """
        if not self._count:
            raise ValueError("no frame of features has arrived")
        yield from self._run(torch.cat(self._waiting), final=True)

    @own_arithmetic
    @torch.no_grad()
    def _run(self, frames: Tensor, final: bool) -> list[Tensor]:
        feats, cond, *latent = usable(frames).split(self._widths, dim=1)
        noise = self._noise.draw(len(feats) * self._hop).to(feats)
        noise = at(Latent(*(part.flatten() for part in latent)) if latent else None, noise, self._temperature)
        wav = self._session.push(noise[None], cond[None], final)[0]
        if self._prediction is not None:
            self._prediction.push_frames(feats, cond, final)
            wav = self._prediction.push(wav)
        return [wav] if len(wav) else []
