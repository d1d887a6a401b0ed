"""The loss of a batch: likelihood, distances of sampled speech, discriminators, each with its weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.flow.recursion import Filters
from flowavenet_plugin.flow.settings import VocoderSettings
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.source import Latent, PulseSource, at
from flowavenet_plugin.vocoder.training.adversarial import Adversary
from flowavenet_plugin.vocoder.training.blur import blurred
from flowavenet_plugin.vocoder.training.distance import SpectralDistance

#: Samples at the start and at the end of a segment that aren't compared: their surroundings are missing.
START, END = 2048, 1024
#: Seed of the noise in validation, so that epochs compare.
VALIDATION_SEED = 0


class LossTables(nn.Module):
    """What computes sources and distances, where they are asked for; nothing of it is kept in a state dict."""

    def __init__(self, settings: VocoderSettings, kind: str, conf: Mapping[str, Any]) -> None:
        """Make what a vocoder's settings ask for.

        Args:
            settings: The vocoder's.
            kind: Type of its features.
            conf: Their settings.

        Raises:
            ValueError: If the features aren't of a kind that this works for.
        """
        super().__init__()
        self.source: PulseSource | None = None
        self.distance: SpectralDistance | None = None
        if settings.source == "pulses":
            self.source = PulseSource(feature_settings(kind, conf))
        if settings.sampled_weight:
            self.distance = SpectralDistance(feature_settings(kind, conf))


class Network(Protocol):
    """What the loss needs of a vocoder."""

    training: bool
    settings: VocoderSettings
    flow: FloWaveNet
    prediction: LinearPrediction | None
    adversary: Adversary | None
    hop_length: int
    temperature: float

    def normalize(self, feats: Tensor) -> Tensor:
        """Standardise features."""

    def tables(self) -> LossTables:
        """Return what computes sources and distances."""


class Batch(NamedTuple):
    """What is learnt from.

    Attributes:
        wav: Waveforms, shape (B, frames * hop_length).
        feats: Un-normalised features, shape (B, frames, n_mels).
        lengths: Samples of each item, shape (B,); None: all.
        count: Samples of all items, 0-dim.
    """

    wav: Tensor
    feats: Tensor
    lengths: Tensor | None
    count: Tensor


def batch_loss(network: Network, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a batch and what it is made of, 0-dim each."""
    settings = network.settings
    tables = network.tables()
    feats = blurred(batch.feats, settings.blur) if network.training and settings.blur else batch.feats
    wav, cond = batch.wav, network.normalize(feats)
    residual, filters, logdet = wav, None, 0.0
    if network.prediction is not None:
        filters = network.prediction.all_filters(feats, cond, batch.lengths)
        residual, logdet = network.prediction.whiten(wav, filters, batch.lengths)
    latent = None
    if tables.source is not None:
        with torch.no_grad():
            latent, sign = tables.source.of_recording(wav, residual, _frames(batch, network.hop_length))
        wav, residual = sign * wav, sign * residual
    noise, flow_logdet = network.flow(residual[:, None], cond.mT, batch.lengths)
    # Pulses and noise have unit power together: for the likelihood, which knows no phase, noise is standard normal.
    log_p = -0.5 * noise.square().sum() / batch.count - 0.5 * math.log(2 * math.pi)
    logdet = (flow_logdet + logdet).sum() / batch.count
    likelihood = log_p + logdet
    loss = -settings.likelihood_weight * likelihood
    stats = dict(log_likelihood=likelihood, log_p=log_p, logdet=logdet)
    if settings.sampled_weight or network.adversary is not None:
        made = _sampled(network, latent, cond, filters, batch.lengths)
        made, wanted = (_inner(x) for x in (made, wav))
        if settings.sampled_weight:
            terms = tables.distance(made, wanted)
            loss = loss + settings.sampled_weight * sum(terms.values())
            stats |= terms
        if network.adversary is not None:
            deceived, told, figures = network.adversary.losses(made, wanted)
            loss = loss + settings.adversarial_weight * deceived + told
            stats |= figures
    return loss, dict(loss=loss, **stats)


def _sampled(
    network: Network, latent: Latent | None, cond: Tensor, filters: Filters | None, lengths: Tensor | None
) -> Tensor:
    """Return sampled speech (B, samples), with gradients of the flow but not of the filters."""
    shape, like = (cond.shape[0], cond.shape[1] * network.hop_length), cond
    generator = None
    if not network.training:
        generator = torch.Generator(like.device).manual_seed(VALIDATION_SEED)
    noise = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
    noise = at(latent, noise, network.temperature)
    wav = network.flow.inverse(noise[:, None], cond.mT, lengths)[:, 0]
    if filters is None:
        return wav
    return network.prediction.color(wav, Filters(*(part.detach() for part in filters)), lengths)


def _inner(wav: Tensor) -> Tensor:
    return wav[:, START:-END] if wav.shape[1] >= 2 * (START + END) else wav


def _frames(batch: Batch, hop_length: int) -> list[int]:
    if batch.lengths is None:
        return [batch.feats.shape[1]] * len(batch.feats)
    return torch.div(batch.lengths + hop_length - 1, hop_length, rounding_mode="floor").tolist()
