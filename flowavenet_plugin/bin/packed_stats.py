"""The statistics of the features in a packed model: those of the vocoder, and no others. Not a command itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.data.stats import read_stats, write_stats
from flowavenet_plugin.vocoder.abs_vocoder import LEAST_STD, AbsVocoder
from flowavenet_plugin.vocoder.loading import read_state_dict

NAME = "feats_stats.npz"
#: Units in the last place by which a vocoder's statistics may be off: they are rounded, and averaged with the weights.
_ROUNDINGS = 16


def pack_stats(model_file: Path, vocoder: AbsVocoder, given: Path | None, folder: Path) -> str | None:
    """Write the statistics by which the vocoder standardises features: those given, or else its own.

    Args:
        model_file: Weights of the vocoder.
        vocoder: The vocoder.
        given: feats_stats.npz of the training features; None: made from the vocoder.
        folder: Where to write.

    Returns:
        Name of the file; None: there is none, as the vocoder takes features as they are.

    Raises:
        FileNotFoundError: If the file that is given is missing.
        ValueError: If it holds something else, or statistics that aren't the vocoder's.
    """
    if given is not None:
        states = read_state_dict(model_file)
        check_stats(given, states.get("feats_mean", vocoder.feats_mean), states.get("feats_std", vocoder.feats_std))
        shutil.copyfile(given, folder / NAME)
        return NAME
    mean, std = (values.double().numpy() for values in (vocoder.feats_mean, vocoder.feats_std))
    if _takes_all(vocoder.feats_mean, vocoder.feats_std):
        return None
    write_stats(folder / NAME, 1, mean, std**2 + mean**2)  # of how many frames is not known
    return NAME


def check_stats(path: Path, own_mean: Tensor, own_std: Tensor) -> None:
    """Refuse statistics that aren't the vocoder's.

    Args:
        path: Their file.
        own_mean: The vocoder's, as its weights hold it, shape (n_mels,).
        own_std: The same of the deviation.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it holds something else, or others; with the band that differs most and both values.
    """
    mean, std = read_stats(path)
    what = "Give those that it was trained with, or leave --feats_stats out: the model holds its own"
    if mean.shape != own_mean.shape:
        raise ValueError(f"--feats_stats {path} is of {len(mean)} bands, the vocoder has {len(own_mean)}. {what}")
    for name, other, own in (("mean", mean, own_mean), ("deviation", std.clip(LEAST_STD), own_std)):
        values = own.double().numpy()
        room = _ROUNDINGS * torch.finfo(own.dtype).eps * np.maximum(abs(values), 1.0)
        difference = np.nan_to_num(abs(other - values), nan=np.inf)
        band = int((difference / room).argmax())
        if difference[band] > room[band]:
            has = f"has {values[band]:.6g}"
            if _takes_all(own_mean, own_std):
                has = "has none: it takes features as they are"
            raise ValueError(
                f"--feats_stats {path} is of other features than the vocoder's: the {name} differs by up to "
                f"{difference[band]:.6g}, in band {band}, where it is {other[band]:.6g} and the vocoder {has}. {what}"
            )


def _takes_all(mean: Tensor, std: Tensor) -> bool:
    """Whether these are those of a vocoder that was given none."""
    return not mean.any() and bool((std == 1).all())
