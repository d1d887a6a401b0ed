"""Does what a training starts from fit what it is told to train? Asked before anything in its folder changes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from flowavenet_plugin.data.settings import read_settings
from flowavenet_plugin.tasks.averaging import check_decay
from flowavenet_plugin.tasks.options import OTHER_RUN, Recorded, check_complete, check_fixed, check_same_batches
from flowavenet_plugin.tasks.saving import CHECKPOINT, RECORD, STOPPED, check_whole, read_checkpoint
from flowavenet_plugin.tasks.schedule import check_halvings
from flowavenet_plugin.tasks.started_from import describe_start, take_up_start
from flowavenet_plugin.tasks.starting_weights import starting_weights
from flowavenet_plugin.tasks.stopped_epoch import read_stopped
from flowavenet_plugin.tasks.trained_on import check_same_sets
from flowavenet_plugin.vocoder.loading import check_keys


def check_starting_point(args: argparse.Namespace, model: nn.Module) -> bool:
    """Check the checkpoint to resume from, or else the weights of ``--init_param``.

    Args:
        args: Of the training: ``resume``, ``output_dir``, ``init_param``, ``ignore_init_mismatch``, and all that a
            configuration holds. Gets ``started_from``.
        model: The model that they describe.

    Returns:
        Whether a run goes on.

    Raises:
        FileNotFoundError: If weights are missing.
        ValueError: If a file is broken, or made by other options, or options make no sense.
    """
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file")
    check_halvings(args.lr_halvings, args.scheduler)
    check_decay(args.ema_decay)
    if args.resume and ((folder / CHECKPOINT).exists() or (folder / STOPPED).exists()):
        _check_going_on(args, model, folder)
        return True
    for value in args.init_param:
        starting_weights(value, model, args.ignore_init_mismatch)
    args.started_from = describe_start(args)
    return False


def starts_with(part: str, args: argparse.Namespace, model: nn.Module) -> bool:
    """Return whether weights of ``--init_param`` hold tensors whose names begin so; arguments as above."""
    states = (starting_weights(value, model, args.ignore_init_mismatch) for value in args.init_param)
    return any(name.startswith(part) for state in states for name in state)


def _check_going_on(args: argparse.Namespace, model: nn.Module, folder: Path) -> None:
    checkpoint, states, epochs = folder / CHECKPOINT, {}, 0
    if checkpoint.exists():
        check_whole(checkpoint)
        states = read_checkpoint(checkpoint)
        epochs = states["reporter"]["epoch"]
    stopped = read_stopped(folder, epochs)
    newest = states if stopped is None else stopped
    if not newest:  # what stopped.pth holds is over
        return
    source = checkpoint if stopped is None else folder / STOPPED
    recorded = _recorded(newest, folder, source)
    check_fixed(recorded, args, model.vocoder.changeable)
    take_up_start(args, recorded.options, recorded.source)
    if args.trained_on:  # a dry run reads none
        check_same_sets(recorded, args)
    new = f"the options, so that this run can't go on there. {OTHER_RUN}"
    check_keys(model.state_dict(), newest["model"], source, new)
    _check_criteria(args, states["reporter"]["stats"] if states else {})
    if stopped is None:
        check_complete(recorded, args, epochs)
    else:
        if args.max_epoch < stopped["epoch"]:
            raise ValueError(
                f"--max_epoch {args.max_epoch}: this run was stopped in the middle of epoch {stopped['epoch']} "
                f"({folder / STOPPED}). Give at least {stopped['epoch']}, or move that file away"
            )
        check_same_batches(recorded, args, stopped["epoch"], folder / STOPPED)


def _recorded(states: Mapping[str, Any], folder: Path, source: Path) -> Recorded:
    """Return the options that trained what is saved; an older version left them in config.yaml alone."""
    if RECORD in states:
        return Recorded(states[RECORD], source)
    config = folder / "config.yaml"
    options = read_settings(config) if config.exists() else None
    return Recorded(options if isinstance(options, Mapping) else {}, config)  # cut short by a kill: written anew


def _check_criteria(args: argparse.Namespace, stats: Mapping[int, Mapping[str, Any]]) -> None:
    """Refuse criteria by figures that earlier epochs lack: ESPnet2 would fail after the next epoch.

    Raises:
        ValueError: With the option, the figure and an epoch.
    """
    criteria = {"best_model_criterion": args.best_model_criterion}
    if args.patience is not None:
        criteria["early_stopping_criterion"] = [args.early_stopping_criterion]
    last = stats[max(stats)] if stats else {}
    for option, every in criteria.items():
        for phase, key, *_ in every:
            will_be_there = args.ema_decay != 0 if key == "ema_loss" else key in last.get(phase, {})
            lacking = [epoch for epoch, figures in stats.items() if key not in figures.get(phase, {})]
            if will_be_there and lacking:
                raise ValueError(
                    f"--{option} {phase} {key}: epoch {lacking[0]} of this run has no such figure, so epochs can't be "
                    "compared by it. Leave it out, or start another run (--output_dir; run.sh: --tag)"
                )
