"""Options of ESPnet2's command line that this task can't follow, refused before any process is started."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.registry import VOCODERS
from flowavenet_plugin.vocoder.settings import VocoderSettings

#: Criterion of the averaged weights.
EMA_CRITERION = ("valid", "ema_loss")


def check_options(args: argparse.Namespace) -> None:
    """Check options against each other.

    Args:
        args: The command line.

    Raises:
        ValueError: If one can't be followed; the message says what to give instead.
    """
    if args.vocoder in VOCODERS and not VOCODERS[args.vocoder].trainable:
        raise ValueError(
            f"--vocoder {args.vocoder} has no weights: there is nothing to train. "
            "python -m flowavenet_plugin.bin.make_mel_inversion writes one that speaks"
        )
    if args.fit_prediction < 0:
        raise ValueError(f"--fit_prediction must be a number of utterances from 0, not {args.fit_prediction}")
    if args.multiple_iterator:
        raise ValueError("--multiple_iterator true can't work here: lists are read whole, so don't split them")
    for name in ("iterator_type", "valid_iterator_type"):
        if getattr(args, name) not in ("sequence", None):
            raise ValueError(
                f"--{name} {getattr(args, name)} can't work here: segments are cut by --segment_length, "
                "of batches of utterances (sequence)"
            )
    if args.ngpu > 1 and not args.multiprocessing_distributed:
        raise ValueError(
            f"--ngpu {args.ngpu} needs --multiprocessing_distributed true, a process per GPU: threads would each start "
            "ActNorm of their own. Of processes that torchrun starts, each has --ngpu 1"
        )
    if args.ema_decay == 0:
        for name in ("best_model_criterion", "early_stopping_criterion", "val_scheduler_criterion"):
            if "ema_loss" in str(getattr(args, name)):
                raise ValueError(f"--{name} {getattr(args, name)}: there is no ema_loss without --ema_decay")
    for phase, key, _ in args.best_model_criterion:
        if key == EMA_CRITERION[1] and phase != EMA_CRITERION[0]:
            raise ValueError(f"--best_model_criterion {phase} {key}: averaged weights have a loss in validation only")
    if any(count < 1 for count in as_list(args.keep_nbest_models)):
        raise ValueError(f"--keep_nbest_models {args.keep_nbest_models}: these are numbers of epochs, 1 or more")


def check_vocoder_conf(name: str, conf: Mapping[str, Any], feats: Mapping[str, Any]) -> None:
    """Check the sizes of a vocoder against the features that it is to be trained on.

    Args:
        name: Name of the vocoder; of others than FloWaveNet nothing is known.
        conf: Its options.
        feats: All settings of the features.

    Raises:
        ValueError: If they don't fit; with both values.
    """
    if not issubclass(VOCODERS.get(name, object), FloWaveNetVocoder):
        return
    try:
        settings = VocoderSettings(**{"n_mels": feats["n_mels"], **conf})
    except TypeError as error:
        raise ValueError(f"vocoder_conf {dict(conf)}: {error}") from error
    if settings.hop_length != feats["hop_length"]:
        raise ValueError(
            f"upsample_scales {list(settings.upsample_scales)} give {settings.hop_length} samples per frame, but the "
            f"features' hop_length is {feats['hop_length']} (run.sh: --n_shift)"
        )
    wanted = [float(feats["fmin"] or 0), feats["fs"] / 2 if feats["fmax"] is None else float(feats["fmax"])]
    if settings.prediction_order and list(map(float, settings.mel_range)) != wanted:
        raise ValueError(
            f"mel_range {list(settings.mel_range)} isn't the features' fmin and fmax, {wanted}: the linear prediction "
            "would be of other frequencies"
        )


def check_for_several(args: argparse.Namespace, world_size: int) -> None:
    """Refuse what several processes can't do.

    Args:
        args: The command line.
        world_size: Number of processes.

    Raises:
        ValueError: If an option is for one process.
    """
    if world_size == 1:
        return
    if args.collect_stats:
        raise ValueError(f"--collect_stats true counts in one process, not in {world_size}: give --ngpu 1 or 0")
    if args.grad_noise:
        raise ValueError(
            f"--grad_noise true is for one process, not for {world_size}: each would add noise of its own to the "
            "gradient that they share"
        )


def as_list(keep_nbest_models: int | list[int]) -> list[int]:
    """Return ESPnet2's option as a list: it takes a number as well; none is 1."""
    return [keep_nbest_models] if isinstance(keep_nbest_models, int) else list(keep_nbest_models) or [1]
