"""What ESPnet2's trainer trains: a batch in; loss, figures and weight out."""

from __future__ import annotations

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
        self, speech: Tensor, speech_lengths: Tensor, feats: Tensor, feats_lengths: Tensor, **kwargs: object
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Compute the loss.

        Args:
            speech: Waveforms, amplitude in [-1, 1], shape (B, samples).
            speech_lengths: Samples of each item, shape (B,).
            feats: Un-normalised features, shape (B, frames, n_mels).
            feats_lengths: Frames of each item, shape (B,).
            kwargs: ESPnet2 adds ``utt_id``.

        Returns:
            Loss (0-dim), figures to report and weight, as ESPnet2's trainer takes them.
        """
        loss, stats, weight = self.vocoder.loss(speech, feats, speech_lengths, feats_lengths)
        return force_gatherable((loss, stats, weight), loss.device)

    def collect_feats(
        self, speech: Tensor, speech_lengths: Tensor, feats: Tensor, feats_lengths: Tensor, **kwargs: object
    ) -> dict[str, Tensor]:
        """Return what ``--collect_stats`` counts: the features as they are."""
        return dict(feats=feats, feats_lengths=feats_lengths)
