"""The loss of a batch: likelihood, distances of sampled speech, discriminators, what reads features; each weighted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.flow.recursion import Filters
from flowavenet_plugin.vocoder.inversion.pieces import working_dtype
from flowavenet_plugin.vocoder.inversion.pitch import PitchReader
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.reading import MelReader, Reading
from flowavenet_plugin.vocoder.settings import VocoderSettings
from flowavenet_plugin.vocoder.source import Latent, PulseSource, at
from flowavenet_plugin.vocoder.training.adversarial import Adversary
from flowavenet_plugin.vocoder.training.blur import blurred
from flowavenet_plugin.vocoder.training.distance import SpectralDistance
from flowavenet_plugin.vocoder.training.reading import reading_loss

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
        self.pitch: PitchReader | None = None
        if settings.source == "pulses":
            self.source = PulseSource(feature_settings(kind, conf))
        if settings.sampled_weight:
            self.distance = SpectralDistance(feature_settings(kind, conf))
        if settings.trains_reader:
            self.pitch = PitchReader(feature_settings(kind, conf)) if self.source is None else self.source.pitch


class Network(Protocol):
    """What the loss needs of a vocoder."""

    training: bool
    settings: VocoderSettings
    flow: FloWaveNet
    prediction: LinearPrediction | None
    adversary: Adversary | None
    reader: MelReader | None
    hop_length: int
    temperature: float
    feats_extract: str
    feats_extract_conf: Mapping[str, Any]

    def normalize(self, feats: Tensor) -> Tensor:
        """Standardise features."""

    def read(self, feats: Tensor, frames: list[int]) -> Reading:
        """Read features, where there is a network for it."""

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


class Likelihood(NamedTuple):
    """What the likelihood of a batch is made of, and what was computed on the way.

    Attributes:
        figures: ``log_likelihood``, ``log_p`` and ``logdet`` in nats per sample, 0-dim each.
        cond: Standardised features, shape (B, frames, n_mels).
        filters: Of the linear prediction; None: there is none.
        wav: The recordings, turned over where their pulses point down, shape (B, samples).
        latent: Pulses and deviations of the recordings; None: the source is noise.
    """

    figures: dict[str, Tensor]
    cond: Tensor
    filters: Filters | None
    wav: Tensor
    latent: Latent | None


def batch_likelihood(network: Network, batch: Batch) -> Likelihood:
    """Compute the likelihood of a batch; where the source is pulses, of recordings whose pulses point up."""
    if network.reader is not None:
        with torch.no_grad():
            batch = batch._replace(feats=network.read(batch.feats, _frames(batch, network.hop_length)).feats)
    wav, cond = batch.wav, network.normalize(batch.feats)
    residual, filters, logdet, latent = wav, None, 0.0, None
    if network.prediction is not None:
        filters = network.prediction.all_filters(batch.feats, cond, batch.lengths)
        residual, logdet = network.prediction.whiten(wav, filters, batch.lengths)
    if (source := network.tables().source) is not None:
        with torch.no_grad():
            latent, sign = source.of_recording(wav, residual, _frames(batch, network.hop_length))
        wav, residual = sign * wav, sign * residual
    noise, flow_logdet = network.flow(residual[:, None], cond.mT, batch.lengths)
    # Pulses and noise have unit power together: for the likelihood, which knows no phase, noise is standard normal.
    log_p = -0.5 * noise.square().sum() / batch.count - 0.5 * math.log(2 * math.pi)
    logdet = (flow_logdet + logdet).sum() / batch.count
    return Likelihood(dict(log_likelihood=log_p + logdet, log_p=log_p, logdet=logdet), cond, filters, wav, latent)


def batch_loss(network: Network, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a batch and what it is made of, 0-dim each.

    What discriminators say is no part of it in validation: the better they become, the worse it would be.

    Raises:
        ValueError: If discriminators are asked for in training, and none were made.
    """
    settings = network.settings
    if network.training and settings.adversarial_weight and network.adversary is None:
        raise ValueError("adversarial_weight is above 0, but there are no discriminators: for_training() makes them")
    loss, stats = batch.wav.new_zeros(()), {}
    if settings.trains_reader:
        terms, stats = _reader_loss(network, batch)
        loss = settings.reader_weight * terms
    if settings.trains_flow:
        terms, figures = _flow_loss(network, batch)
        loss, stats = loss + terms, {**figures, **stats}
    return loss, dict(loss=loss, **stats)


def _reader_loss(network: Network, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    frames = _frames(batch, network.hop_length)
    with torch.no_grad():
        pitch = network.tables().pitch.of_recording(batch.wav.to(working_dtype(batch.wav)), frames)
    features = feature_settings(network.feats_extract, network.feats_extract_conf)
    return reading_loss(network.read, batch.feats, pitch, frames, features, network.training)


def _flow_loss(network: Network, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    settings = network.settings
    if network.training and settings.blur:
        batch = batch._replace(feats=blurred(batch.feats, settings.blur, _frames(batch, network.hop_length)))
    found = batch_likelihood(network, batch)
    stats = dict(found.figures)
    loss = -settings.likelihood_weight * stats["log_likelihood"]
    if settings.sampled_weight or network.adversary is not None:
        made = _sampled(network, found, batch.lengths)
        (made, wanted), lengths = _inner((made, found.wav), batch.lengths)
        if settings.sampled_weight:
            terms = network.tables().distance(made, wanted, lengths)
            loss = loss + settings.sampled_weight * sum(terms.values())
            stats |= terms
        if network.adversary is not None:
            deceived, told, figures = network.adversary.losses(made, wanted)
            stats |= figures
            if network.training:
                loss = loss + settings.adversarial_weight * deceived + told
    return loss, stats


def _sampled(network: Network, found: Likelihood, lengths: Tensor | None) -> Tensor:
    """Return sampled speech (B, samples), with gradients of the flow but not of the filters."""
    like, count, samples = found.cond, found.cond.shape[0], found.cond.shape[1] * network.hop_length
    if network.training:
        noise = torch.randn(count, samples, device=like.device, dtype=like.dtype)
    else:  # each item's, whatever batch it is in
        generator = torch.Generator(like.device).manual_seed(VALIDATION_SEED)
        noise = torch.randn(samples, generator=generator, device=like.device, dtype=like.dtype).expand(count, -1)
    noise = at(found.latent, noise, network.temperature)
    wav = network.flow.inverse(noise[:, None], found.cond.mT, lengths)[:, 0]
    if found.filters is None:
        return wav
    return network.prediction.color(wav, Filters(*(part.detach() for part in found.filters)), lengths)


def _inner(wavs: Sequence[Tensor], lengths: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
    """Cut off the edges of waveforms (B, samples), whose surroundings are missing; and the lengths of what is left."""
    if wavs[0].shape[1] < 2 * (START + END):
        return list(wavs), lengths
    return [wav[:, START:-END] for wav in wavs], None if lengths is None else (lengths - START - END).clamp(min=1)


def _frames(batch: Batch, hop_length: int) -> list[int]:
    if batch.lengths is None:
        return [batch.feats.shape[1]] * len(batch.feats)
    return torch.div(batch.lengths + hop_length - 1, hop_length, rounding_mode="floor").tolist()
