"""Do features have the level that a vocoder takes, and is what it makes of them sound?"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.checks import as_feats, as_items, check_feats, check_peak
from flowavenet_plugin.vocoder.inversion.settings import feature_range

#: Distance of an utterance's mean from the training mean, in standard deviations (root mean square over bands).
SUSPICIOUS, FAR = 1.5, 3.0
#: Factors of ten (in mel) by which features may leave the range of what can be extracted: models overshoot a little.
BEYOND = 2.0
#: Frames of a stream whose mean is looked at.
STREAM_FRAMES = 64


def check_level(vocoder: AbsVocoder, feats: Tensor) -> str | None:
    """Compare an utterance's features with what the vocoder takes: shape, range, and level.

    Normalised features (mean 0 and deviation 1 in each band, as acoustic models predict them) are the commonest
    mistake; a vocoder makes noise of them. They are told by a mean near 0 and a deviation near 1 where the training
    features have another mean. A vocoder that isn't trained tells them by the loudness that they ask for; an untrained
    one can't.

    Args:
        vocoder: A loaded vocoder.
        feats: Features, shape (frames, n_mels).

    Returns:
        None if all is well, else a warning.

    Raises:
        ValueError: If the features have another shape, aren't finite, can't be of any sound, or look normalised.
    """
    check_feats(feats, vocoder.n_mels)
    feats = feats.to(vocoder.feats_mean)
    _check_range(vocoder, feats)
    if (loudness := vocoder.loudness(feats)) is not None:
        _check_loudness(loudness, feats)
        return None
    mean, std = vocoder.feats_mean, vocoder.feats_std
    if len(feats) < 2 or not _has_statistics(vocoder):
        return None
    distance = _rms((feats.mean(dim=0) - mean) / std)
    from_zero, deviation = _rms(feats.mean(dim=0)), _rms(feats.std(dim=0))
    # A poor acoustic model predicts the mean: little deviation is normal there, and proof enough so far off.
    least = 0.0 if distance > FAR else 0.4
    if distance > SUSPICIOUS and from_zero < min(0.75, distance / 2) and least <= deviation < 2:
        raise ValueError(
            f"the features look normalised (mean {from_zero:.2f} from 0, deviation {deviation:.2f}), but this vocoder "
            f"takes them as they are (training mean {mean.mean():.2f}): {_ADVICE}"
        )
    if distance > FAR:
        return (
            f"mean {feats.mean():.2f}, while the training features had {mean.mean():.2f}: {distance:.1f} standard "
            "deviations away. Loudness, logarithm or feature type may differ from training"
        )
    return None


_ADVICE = "give it ESPnet2's denorm/feats.scp, not norm/, and leave --prefer_normalized_feats false"
#: Root mean square of sound, full scale is 1, that the loudest speech stays below.
_LOUDEST = 0.45


def _check_range(vocoder: AbsVocoder, feats: Tensor) -> None:
    least, highest, factor = feature_range(vocoder.feats_extract, vocoder.feats_extract_conf)
    low, high = feats.min().item(), feats.max().item()
    if low < least - BEYOND * factor or high > highest + BEYOND * factor:
        raise ValueError(
            f"the features go from {low:.2f} to {high:.2f}, but what is extracted ({vocoder.feats_extract}) lies from "
            f"{least:g} to {highest:g}: they are of another type or logarithm, or normalised. {_ADVICE}"
        )


def _check_loudness(loudness: float, feats: Tensor) -> None:
    if not loudness < _LOUDEST:
        raise ValueError(
            f"the features look normalised (mean {feats.mean():.2f}): they ask for sound of a root mean square of "
            f"{loudness:.3g}, but recordings stay below {_LOUDEST}, where full scale is 1. {_ADVICE}"
        )


def _has_statistics(vocoder: AbsVocoder) -> bool:
    return not (torch.all(vocoder.feats_mean == 0) and torch.all(vocoder.feats_std == 1))


def _rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def taken(vocoder: AbsVocoder, feats: Tensor | np.ndarray) -> Tensor:
    """Return the features of an utterance as a vocoder computes with them; what is suspicious is logged.

    Args:
        vocoder: The vocoder; unless ``checks`` is on, only shape and finiteness are looked at.
        feats: Features, shape (frames, n_mels).

    Raises:
        ValueError: If they can't be used, see :func:`check_level`.
    """
    feats = as_feats(feats, vocoder.n_mels, vocoder.feats_mean)
    if vocoder.checks and (warning := check_level(vocoder, feats)) is not None:
        logging.warning(f"the features of this utterance have a {warning}")
    return feats


def taken_batch(vocoder: AbsVocoder, feats: Iterable, seeds: Iterable | None) -> tuple[list[Tensor], list]:
    """Return the features of several utterances, and the seed of each, None where there are none; see :func:`taken`.

    Raises:
        ValueError: If features can't be used (the message counts the utterances from 1), or there are not as many
            seeds as utterances.
    """
    feats = as_items("the features", feats)
    seeds = [None] * len(feats) if seeds is None else as_items("the seeds", seeds)
    if len(seeds) != len(feats):
        raise ValueError(f"{len(seeds)} seeds for {len(feats)} utterances")
    if len(feats) == 1:
        return [taken(vocoder, feats[0])], seeds
    for number, item in enumerate(feats):
        try:
            feats[number] = taken(vocoder, item)
        except ValueError as error:
            raise ValueError(f"utterance {number + 1} of {len(feats)}: {error}") from error
    return feats, seeds


def taken_pieces(vocoder: AbsVocoder, pieces: Iterable[Tensor | np.ndarray]) -> Iterator[Tensor]:
    """Give the features of a stream on as they arrive, without empty pieces.

    Shape and range are looked at in each piece, the mean once, when ``STREAM_FRAMES`` frames or all have arrived.

    Raises:
        ValueError: If they can't be used, see :func:`check_level`.
    """
    first: list[Tensor] = []
    watching = vocoder.checks
    for piece in pieces:
        if getattr(piece, "shape", (1,))[:1] == (0,):
            continue
        piece = as_feats(piece, vocoder.n_mels, vocoder.feats_mean)
        if vocoder.checks:
            _check_range(vocoder, piece)
        if watching:
            first.append(piece)
            if sum(map(len, first)) >= STREAM_FRAMES:
                taken(vocoder, torch.cat(first))
                first, watching = [], False
        yield piece
    if first:
        taken(vocoder, torch.cat(first))


def heard(vocoder: AbsVocoder, wav: Tensor) -> Tensor:
    """Return sound, shape (samples,), that a vocoder made.

    Raises:
        ValueError: If the vocoder's ``checks`` is on, it has been trained as far as its statistics tell, or needs no
            training, and samples aren't finite or far beyond full scale.
    """
    if vocoder.checks and (not vocoder.trainable or _has_statistics(vocoder)):
        check_peak("the sound", wav)
    return wav


@contextmanager
def unchecked(vocoder: AbsVocoder) -> Iterator[None]:
    """Make sound without looking at features and samples for a while, as training does."""
    before, vocoder.checks = vocoder.checks, False
    try:
        yield
    finally:
        vocoder.checks = before
