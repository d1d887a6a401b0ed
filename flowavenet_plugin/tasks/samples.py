"""Pictures and sound of a few fixed utterances while a vocoder is in training."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.level import unchecked

#: Longest part of an utterance that is shown, in seconds.
MAX_SECONDS = 5.0


@torch.no_grad()
def show_samples(
    vocoder: AbsVocoder,
    batches: Iterable[tuple[list[str], dict[str, Any]]],
    epoch: int,
    images: Path | None,
    writer: Any | None = None,
) -> None:
    """Synthesise utterances at the vocoder's own temperature, each with noise of its own that stays the same.

    Args:
        vocoder: In evaluation mode.
        batches: Ids and ``speech`` (1, samples), ``feats`` (1, frames, n_mels).
        epoch: For the names.
        images: Folder for ``sample_<utterance>_<epoch>epoch.png``: natural and synthesised mel-spectrograms; None: no
            pictures.
        writer: Tensorboard's writer, which gets pictures and sound; None: none.
    """
    for (uid, *_), batch in batches:
        natural = batch["speech"][0]
        feats = batch["feats"][0].to(vocoder.feats_mean)
        with unchecked(vocoder):  # early in training it may be far too loud; no reason to end it
            synthesised = vocoder.inference(feats, seed=zlib.crc32(uid.encode())).float().cpu()[: len(natural)]
        if not synthesised.isfinite().all():
            logging.warning(f"no sample of {uid}: its synthesis in epoch {epoch} is not finite")
            continue
        if writer is not None:
            writer.add_audio(f"natural/{uid}", natural.float().cpu(), epoch, sample_rate=vocoder.fs)
            writer.add_audio(f"synthesised/{uid}", synthesised.clamp(-1, 1), epoch, sample_rate=vocoder.fs)
        if images is not None:
            sounds = natural.float().cpu().numpy(), synthesised.numpy()
            _draw(uid, sounds, vocoder.fs, epoch, images, writer)


def _draw(
    uid: str, sounds: tuple[np.ndarray, np.ndarray], fs: int, epoch: int, images: Path, writer: Any | None
) -> None:
    from flowavenet_plugin.evaluation.plots import Pair, plot_samples  # heavy, and needed every few epochs only

    images.mkdir(parents=True, exist_ok=True)
    figure = plot_samples([Pair(uid, *sounds)], fs, title=f"epoch {epoch}")
    figure.savefig(images / f"sample_{uid.replace('/', '_')}_{epoch}epoch.png")
    if writer is not None:
        writer.add_figure(f"sample/{uid}", figure, epoch)
