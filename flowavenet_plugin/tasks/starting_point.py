"""Does what a training starts from fit what it is told to train? Asked before anything in its folder changes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from torch import nn

from flowavenet_plugin.tasks.saving import check_whole
from flowavenet_plugin.tasks.starting_weights import starting_weights
from flowavenet_plugin.vocoder.loading import check_keys, read_tensors


def check_starting_point(args: argparse.Namespace, model: nn.Module) -> None:
    """Check the checkpoint to resume from, or else the weights of ``--init_param``.

    Args:
        args: Of the training: ``resume``, ``output_dir``, ``init_param``, ``ignore_init_mismatch``, and all that a
            configuration holds.
        model: The model that they describe.

    Raises:
        FileNotFoundError: If weights are missing.
        ValueError: If a file is broken, or made by other options.
    """
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file")
    if args.resume and (folder / "checkpoint.pth").exists():
        check_whole(folder / "checkpoint.pth")
        _check_same_options(args, folder, model.vocoder.changeable)
        states = read_tensors(folder / "checkpoint.pth", mmap=True)
        new = f"the options, so that this run can't go on there. {OTHER_RUN}"
        check_keys(model.state_dict(), states["model"], folder / "checkpoint.pth", new)
    else:
        for value in args.init_param:
            starting_weights(value, model, args.ignore_init_mismatch)


OTHER_RUN = "Go on with the options of its config.yaml, or start another run (--output_dir; run.sh: --tag)"


def _check_same_options(args: argparse.Namespace, folder: Path, changeable: Sequence[str]) -> None:
    """Compare the options that a run can't change on its way with those of its config.yaml."""
    config = folder / "config.yaml"
    if not config.exists():
        return
    before = yaml.safe_load(config.read_text(encoding="utf-8"))
    before = before if isinstance(before, Mapping) else {}  # cut short by a kill: it is written anew
    for name in ("vocoder", "vocoder_conf", "feats_extract", "feats_extract_conf", "optim", "train_dtype"):
        old, new = before.get(name), getattr(args, name)
        if isinstance(old, Mapping):  # an older version had fewer options
            common = [key for key in new if key in old and key not in changeable and new[key] != old[key]]
            old, new = ({key: conf[key] for key in common} for conf in (old, new))
        if name in before and old != new:
            raise ValueError(f"this run can't go on with {name} {new}: {config} has {old}. {OTHER_RUN}")
