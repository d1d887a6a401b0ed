"""The contract between a vocoder and whatever trains it or lets it speak."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Least standard deviation of a band.
LEAST_STD = 1e-5


class AbsVocoder(nn.Module, ABC):
    """A vocoder: takes un-normalised features, knows rate and hop, and keeps the features' statistics.

    Mean and standard deviation of the training features are buffers, so that a copied or moved checkpoint needs no
    other file. A subclass gives :meth:`loss` and :meth:`inference`.

    Attributes:
        state_is_whole: Whether parameters and buffers are all tensors of the class: it is then loaded without memory
            for weights that are replaced at once.
        changeable: Options of the constructor that may change while a run of training goes on.
        training_only: How the names of parameters begin that only training has: loading leaves them out.
        may_be_new: How the names of parts begin that a training may add to weights without them, since it trains them.
        trainable: Whether there is anything to train.
        exact_stream: Whether a stream's pieces, joined, are the sound of the whole.
        checks: Whether features and sound are looked at: features that look normalised or can't be of any sound, and
            sound far beyond full scale, are then refused. It may be switched off.
        checks_itself: Whether the class does so; for others those who call it do, where they can.
        feats_extract: Type of the features.
        feats_extract_conf: Their settings.
    """

    state_is_whole = False
    changeable: Sequence[str] = ()
    training_only: Sequence[str] = ()
    may_be_new: Sequence[str] = ()
    trainable = True
    exact_stream = True
    checks = True
    checks_itself = False
    feats_extract: str
    feats_extract_conf: Mapping[str, Any]

    def __init__(self, fs: int, hop_length: int, n_mels: int) -> None:
        """Keep the sizes.

        Args:
            fs: Sampling rate in Hz.
            hop_length: Samples per frame.
            n_mels: Mel bands.
        """
        super().__init__()
        self.fs = fs
        self.hop_length = hop_length
        self.n_mels = n_mels
        self.feats_extract, self.feats_extract_conf = "fbank", dict(fs=fs, hop_length=hop_length, n_mels=n_mels)
        self.register_buffer("feats_mean", torch.zeros(n_mels))
        self.register_buffer("feats_std", torch.ones(n_mels))

    def set_features(self, kind: str, conf: Mapping[str, Any]) -> None:
        """Tell how the features are made, as loading does.

        Args:
            kind: Type of the features, ``fbank`` or ``original``.
            conf: Their settings, ``feats_extract_conf``; what is missing has its default.
        """
        self.feats_extract, self.feats_extract_conf = kind, dict(conf)

    def set_feats_stats(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics of the training features, each of shape (n_mels,).

        Raises:
            ValueError: If a shape differs, or a standard deviation is negative or not finite.
        """
        for name, value in (("mean", mean), ("std", std)):
            if tuple(value.shape) != (self.n_mels,):
                raise ValueError(
                    f"{name} of the features has shape {tuple(value.shape)}, the vocoder {self.n_mels} bands"
                )
            if not torch.isfinite(value).all() or (name == "std" and (value < 0).any()):
                raise ValueError(f"{name} of the features holds impossible values: {value.tolist()}")
        self.feats_mean.copy_(mean)
        # A band that never changes (a mel filter without any FFT bin) is left at its deviation of zero.
        self.feats_std.copy_(std.clamp(min=LEAST_STD))

    def normalize(self, feats: Tensor) -> Tensor:
        """Standardise features, shape (..., n_mels)."""
        return (feats - self.feats_mean) / self.feats_std

    def loudness(self, feats: Tensor) -> float | None:
        """Return the root mean square of the sound that features ask for, full scale is 1; None: only training tells.

        Args:
            feats: Un-normalised features, shape (frames, n_mels).
        """
        return None

    def aim(self, feats: Tensor) -> Tensor:
        """Return the features that the sound of features is to have; these themselves, unless a class reads others.

        Args:
            feats: Un-normalised features, shape (frames, n_mels).
        """
        return feats

    def aims(self) -> Any:
        """Return what does the same while features arrive, with ``push`` of :class:`ReadingSession`; None: nothing."""
        return None

    def for_inference(self, dtype: torch.dtype | None = None) -> None:
        """Free what only training and scoring need, where a class can; from now on it makes sound and nothing else.

        Args:
            dtype: Precision of the sound to come, for classes that know several.
        """

    def for_training(self, discriminators: Callable[[int], nn.Module]) -> None:
        """Make what only training needs, where a class has such parts; their names begin as ``training_only`` says.

        Args:
            discriminators: Makes discriminators of waveforms, of so many channels.
        """

    @abstractmethod
    def loss(
        self, wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Compute the training loss.

        Args:
            wav: Waveforms, amplitude in [-1, 1], shape (B, samples).
            feats: Un-normalised features, shape (B, frames, n_mels).
            wav_lengths: Samples of each item, shape (B,); None: all items fill the tensors, as segments do.
            feats_lengths: Frames of each item, shape (B,); None: likewise.

        Returns:
            Loss, 0-dim; figures to report, 0-dim each; and the weight of both in averages over batches, 0-dim.
        """

    @abstractmethod
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
            temperature: Standard deviation of the noise.
            seed: Seed of the noise; the same seed gives the same waveform.
            noise: The noise itself, standard normal, shape (frames * hop_length,).

        Returns:
            Waveform, shape (frames * hop_length,).
        """

    def log_likelihood(self, wav: Tensor, feats: Tensor) -> Tensor:
        """Return log p(wav | feats) in nats per sample, 0-dim, for vocoders that have a likelihood.

        Args:
            wav: Waveform, amplitude in [-1, 1], shape (samples,).
            feats: Un-normalised features, shape (frames, n_mels).

        Raises:
            TypeError: If this vocoder has no likelihood.
        """
        raise TypeError(f"{type(self).__name__} has no likelihood")

    @torch.no_grad()
    def forward(self, feats: Tensor) -> Tensor:
        """Turn features (frames, n_mels) into sound (samples,): what ESPnet2's inference calls."""
        return self.inference(feats)
