"""A new training's linear prediction begins as what fits its recordings, see vocoder/training/prediction_fit.py."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from flowavenet_plugin.data.scp import read_scp
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.training.prediction_fit import fit_prediction


def start_prediction(args: argparse.Namespace, vocoder: AbsVocoder, dataset: Any, shape_file: str, n_fft: int) -> None:
    """Fit the linear prediction of a vocoder that begins from nothing.

    Args:
        args: Of the training: ``fit_prediction``, the number of utterances.
        vocoder: With a linear prediction.
        dataset: The recordings, ESPnet2's: by id speech (samples,) and feats (frames, n_mels).
        shape_file: List of the utterances that are the training set: there may be others in the dataset.
        n_fft: Size of the Fourier transform of the features in samples.
    """
    utts = evenly(list(read_scp(shape_file)), args.fit_prediction)
    logging.info(f"the linear prediction is fitted to {len(utts)} utterances")
    frames = fit_prediction(vocoder, _recordings(dataset, utts), n_fft)
    logging.info(f"the linear prediction is fitted to {frames} frames")


def evenly(items: Sequence[str], count: int) -> list[str]:
    """Return so many items, or all if there are fewer, from all over the list."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _recordings(dataset: Any, utts: Iterable[str]) -> Iterator[tuple[Tensor, Tensor]]:
    for utt in utts:
        _, found = dataset[utt]
        yield tuple(torch.from_numpy(found[name]) for name in ("speech", "feats"))
