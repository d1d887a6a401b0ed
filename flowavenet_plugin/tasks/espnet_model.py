"""What ESPnet2's trainer trains: a batch in; loss, figures and weight out."""

from __future__ import annotations

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder


class ESPnetVocoderModel(AbsESPnetModel):
    """A vocoder in training."""

    def __init__(self, vocoder: AbsVocoder) -> None:
        """Keep the vocoder."""
        super().__init__()
        self.vocoder = vocoder

    def forward(
        self,
        speech: Tensor,
        feats: Tensor,
        speech_lengths: Tensor | None = None,
        feats_lengths: Tensor | None = None,
        **kwargs: object,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Compute the loss.

        Args:
            speech: Waveforms, amplitude in [-1, 1], shape (B, samples).
            feats: Un-normalised features, shape (B, frames, n_mels).
            speech_lengths: Samples of each item, shape (B,); None: all items fill the tensors.
            feats_lengths: Frames of each item, shape (B,); None: likewise.
            kwargs: ESPnet2 adds ``utt_id``.

        Returns:
            Loss (0-dim), figures to report and weight, as ESPnet2's trainer takes them.
        """
        loss, stats, weight = self.vocoder.loss(speech, feats, speech_lengths, feats_lengths)
        # The trainer skips updates by the gradient, on all processes alike; so a loss that isn't finite must have a
        # gradient that isn't. This needs no look at the value, which would wait for the GPU.
        finite = torch.isfinite(loss.detach())
        loss = loss * torch.where(finite, torch.ones_like(loss), torch.full_like(loss, torch.nan)).detach()
        return force_gatherable((loss, stats, weight), loss.device)

    def collect_feats(
        self,
        speech: Tensor,
        feats: Tensor,
        speech_lengths: Tensor | None = None,
        feats_lengths: Tensor | None = None,
        **kwargs: object,
    ) -> dict[str, Tensor]:
        """Return what ``--collect_stats`` counts: the features as they are."""
        if feats_lengths is None:
            feats_lengths = torch.full((feats.shape[0],), feats.shape[1])
        return dict(feats=feats, feats_lengths=feats_lengths)
