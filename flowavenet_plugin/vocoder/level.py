"""Do features have the level that a vocoder was trained on?"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder

#: Distance of an utterance's mean from the training mean, in standard deviations (root mean square over bands).
SUSPICIOUS, FAR = 1.5, 3.0


def check_level(vocoder: AbsVocoder, feats: Tensor) -> str | None:
    """Compare an utterance's features with the statistics of the vocoder's training features.

    Normalised features (mean 0 and deviation 1 in each band, as acoustic models predict them) are the commonest
    mistake; a vocoder makes noise of them. They are told by a mean near 0 and a deviation near 1 where the training
    features have another mean. A vocoder without statistics can't tell.

    Args:
        vocoder: A loaded vocoder.
        feats: Features, shape (frames, n_mels).

    Returns:
        None if all is well, else a warning.

    Raises:
        ValueError: If the features look normalised.
    """
    mean, std = vocoder.feats_mean, vocoder.feats_std
    if len(feats) < 2 or (torch.all(mean == 0) and torch.all(std == 1)):
        return None
    feats = feats.to(mean)
    distance = _rms((feats.mean(dim=0) - mean) / std)
    from_zero, deviation = _rms(feats.mean(dim=0)), _rms(feats.std(dim=0))
    # A poor acoustic model predicts the mean: little deviation is normal there, and proof enough so far off.
    least = 0.0 if distance > FAR else 0.4
    if distance > SUSPICIOUS and from_zero < min(0.75, distance / 2) and least <= deviation < 2:
        raise ValueError(
            f"the features look normalised (mean {from_zero:.2f} from 0, deviation {deviation:.2f}), but this vocoder "
            f"takes them as they are (training mean {mean.mean():.2f}): give it ESPnet2's denorm/feats.scp, not norm/, "
            "and leave --prefer_normalized_feats false"
        )
    if distance > FAR:
        return (
            f"mean {feats.mean():.2f}, while the training features had {mean.mean():.2f}: {distance:.1f} standard "
            "deviations away. Loudness, logarithm or feature type may differ from training"
        )
    return None


def _rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()
