"""A vocoder as ESPnet2's inference scripts call it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.level import heard, taken
from flowavenet_plugin.vocoder.seeds import noise_seed


class Text2SpeechVocoder(nn.Module):
    """Features in, sound out; the noise follows ESPnet2's ``--seed``."""

    def __init__(self, vocoder: AbsVocoder) -> None:
        """Keep the vocoder."""
        super().__init__()
        self.vocoder = vocoder
        self.fs = vocoder.fs

    @torch.no_grad()
    def forward(self, feats: Tensor, *pitch: Tensor) -> Tensor:
        """Turn features into sound.

        Args:
            feats: Un-normalised features, shape (frames, n_mels).
            pitch: ESPnet2's singing models add one; this vocoder has no use for it.

        Returns:
            Waveform, shape (frames * hop_length,): the same that ``vocoder_inference --seed`` makes of these features.

        Raises:
            ValueError: If the features are none of this vocoder's, or look normalised; or if no sound comes out.
        """
        vocoder, seed = self.vocoder, noise_seed(torch.initial_seed(), feats)
        if vocoder.checks_itself:
            return vocoder.inference(feats, seed=seed)
        return heard(vocoder, vocoder.inference(taken(vocoder, feats), seed=seed))
