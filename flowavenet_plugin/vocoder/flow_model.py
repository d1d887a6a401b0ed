"""What a flow vocoder learns: its parts, its likelihood and its loss. How it speaks: flowavenet_vocoder.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import full_precision, own_arithmetic, usable
from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.checks import as_feats, as_waveform, check_temperature, sample_counts
from flowavenet_plugin.vocoder.folded import FoldedWeights
from flowavenet_plugin.vocoder.inversion.pieces import Tables
from flowavenet_plugin.vocoder.level import taken
from flowavenet_plugin.vocoder.reading import MelReader, Reading
from flowavenet_plugin.vocoder.reading.session import ReadingSession
from flowavenet_plugin.vocoder.settings import VocoderSettings
from flowavenet_plugin.vocoder.training.adversarial import Adversary
from flowavenet_plugin.vocoder.training.objective import Batch, LossTables, batch_likelihood, batch_loss


class FlowModel(AbsVocoder):
    """A :class:`FloWaveNet` behind a linear prediction, if there is one, given standardised features."""

    state_is_whole = True
    changeable = ("temperature", "reversible", "likelihood_weight", "sampled_weight", "blur")
    training_only = ("adversary.",)

    def __init__(self, fs: int, hop_length: int, n_mels: int, **settings: Any) -> None:
        """Build the network; arguments and errors as of :class:`FloWaveNetVocoder`."""
        super().__init__(fs, hop_length, n_mels)
        #: What it was built of.
        self.settings = given = VocoderSettings(n_mels=n_mels, **settings)
        if given.hop_length != hop_length:
            raise ValueError(
                f"upsample_scales {list(given.upsample_scales)} give {given.hop_length} samples per frame, but the "
                f"features' hop_length is {hop_length}"
            )
        self._folded = FoldedWeights()
        self.prediction = None
        if given.prediction_order != 0:
            sizes = fs, hop_length, n_mels, given.prediction_order, given.prediction_channels
            self.prediction = LinearPrediction(*sizes, (given.mel_range[0], given.mel_range[1]))
        self.temperature = check_temperature(given.temperature)
        self.flow = FloWaveNet(**given.flow)
        self.reader = None
        if given.reader_channels:
            self.reader = MelReader(n_mels, given.reader_channels, given.reader_layers)
        #: Discriminators, in training only.
        self.adversary: Adversary | None = None
        self.may_be_new = ("reader.",) if given.trains_reader else ()
        self._tables = Tables(self._make_tables)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.feats_mean.device

    @own_arithmetic
    def loss(
        self, wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the negative log-likelihood per sample in nats, averaged over all samples of the batch.

        Arguments and return values as in :meth:`AbsVocoder.loss`; the weight is the number of samples. Settings may ask
        for more terms, see :mod:`vocoder.training.objective`.

        Raises:
            ValueError: If an item's waveform and features don't fit each other (seen for lengths on the CPU only), or
                :meth:`for_inference` was called.
        """
        self._folded.need_originals("train or to score with")
        batch = self._batch(wav, feats, wav_lengths, feats_lengths)
        loss, stats = batch_loss(self, batch)
        return loss, {name: value.detach() for name, value in stats.items()}, batch.count.to(loss.dtype)

    def for_training(self, discriminators: Callable[[int], nn.Module]) -> None:
        """See :meth:`AbsVocoder.for_training`."""
        for name, parameter in self.named_parameters():  # what isn't trained needs no gradient, nor several processes
            learns = self.settings.trains_reader if name.startswith("reader.") else self.settings.trains_flow
            parameter.requires_grad_(learns)
        if self.settings.adversarial_weight and self.adversary is None:
            self.adversary = Adversary(discriminators(self.settings.discriminator_channels)).to(self.feats_mean)

    def read(self, feats: Tensor, frames: list[int]) -> Reading:
        """Read features, with gradients.

        Args:
            feats: Un-normalised features, shape (B, frames, n_mels).
            frames: Frames of each item.
        """
        change, said = self.reader(self.normalize(feats), frames)
        return Reading(feats + change * self.feats_std, said.log_softmax(dim=2))

    @own_arithmetic
    @torch.no_grad()
    def aim(self, feats: Tensor) -> Tensor:
        """See :meth:`AbsVocoder.aim`."""
        feats = as_feats(feats, self.n_mels, self.feats_mean)
        return feats if self.reader is None else self.read(feats[None], [len(feats)]).feats[0]

    def aims(self) -> ReadingSession | None:
        """See :meth:`AbsVocoder.aims`."""
        return None if self.reader is None else ReadingSession(self.read, self.reader.reach, self.feats_mean)

    def _make_tables(self) -> LossTables:
        return LossTables(self.settings, self.feats_extract, self.feats_extract_conf)

    def tables(self) -> LossTables:
        """Return what computes sources and distances."""
        return self._tables.like(self.feats_mean)

    def set_features(self, kind: str, conf: Mapping[str, Any]) -> None:
        """Tell how the features are made; see :meth:`AbsVocoder.set_features`.

        Raises:
            ValueError: If a source can't be made of such features, or sampled speech not compared by them.
        """
        super().set_features(kind, conf)
        self._tables = Tables(self._make_tables)
        self.tables()

    @own_arithmetic
    @torch.no_grad()
    def log_likelihood(self, wav: Tensor | np.ndarray, feats: Tensor | np.ndarray) -> Tensor:
        """Return log p(wav | feats) in nats per sample, 0-dim; with pulses as the source, of wav with its pulses up.

        Args:
            wav: Waveform, amplitude in [-1, 1], shape (samples,), with (frames - 1) * hop_length <= samples <=
                frames * hop_length.
            feats: Un-normalised features, shape (frames, n_mels).

        Raises:
            ValueError: If the waveform doesn't fit the features, or holds integers.
        """
        feats, wav = taken(self, feats), as_waveform(wav, self.feats_mean)
        self._folded.need_originals("train or to score with")
        with full_precision():
            batch = self._batch(wav[None], feats[None], torch.tensor(wav.shape), torch.tensor(feats.shape[:1]))
            return batch_likelihood(self, batch).figures["log_likelihood"]

    def _batch(self, wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None) -> Batch:
        wav, feats, size = usable(wav), usable(feats), feats.shape[1] * self.hop_length
        wav_lengths, whole = sample_counts(wav, feats, wav_lengths, feats_lengths, self.hop_length)
        wav = F.pad(wav, (0, size - wav.shape[1]))  # (B, frames * hop_length); a negative pad cuts
        return Batch(wav, feats, None if whole else wav_lengths, wav_lengths.sum())
