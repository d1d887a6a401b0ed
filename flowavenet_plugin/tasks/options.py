"""Options of a run that goes on: each is taken up, or refused with both values before anything is written."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

OTHER_RUN = "Go on with the options of its config.yaml, or start another run (--output_dir; run.sh: --tag)"

#: What a run can't change on its way.
FIXED = (
    "vocoder",
    "vocoder_conf",
    "feats_extract",
    "feats_extract_conf",
    "optim",
    "train_dtype",
    "scheduler",
    "scheduler_conf",
    "exclude_weight_decay",
    "exclude_weight_decay_conf",
    "sharded_ddp",
    "use_adapter",
    "adapter",
    "adapter_conf",
)
#: What decides on an epoch's batches: taken up by the next epoch.
BATCHES = (
    "batch_type",
    "batch_size",
    "batch_bins",
    "min_batch_size",
    "fold_length",
    "sort_in_batch",
    "sort_batch",
    "drop_last_iter",
    "shuffle_within_batch",
    "num_iters_per_epoch",
    "segment_length",
    "accum_grad",
    "seed",
)
#: What is taken up at once; with the batches all that an epoch's result depends on and that may change.
UPDATES = (
    "optim_conf",
    "lr_halvings",
    "ema_decay",
    "grad_clip",
    "grad_clip_type",
    "grad_noise",
    "dequantize",
    "use_amp",
    "freeze_param",
)
#: Name of an option -> old and new value.
Changes = dict[str, tuple[Any, Any]]
#: YAML takes numbers such as 5e-4, without a point before the exponent, as text.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def with_numbers(value: Any) -> Any:
    """Return an option's value with numbers for texts that are numbers, at any depth.

    Example:
        >>> with_numbers({"lr": "5e-4", "betas": [0.9, "9.9E-1"], "name": "e-4"})
        {'lr': 0.0005, 'betas': [0.9, 0.99], 'name': 'e-4'}
    """
    if isinstance(value, Mapping):
        return {key: with_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def convert_numbers(args: argparse.Namespace) -> None:
    """Make numbers of the texts in all options that hold keys and values (``optim_conf`` and its like)."""
    for name, value in vars(args).items():
        if isinstance(value, Mapping):
            setattr(args, name, with_numbers(value))


def plain_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return all options as YAML would read them from config.yaml."""
    return yaml.safe_load(yaml.safe_dump({key: value for key, value in vars(args).items() if _is_plain(value)}))


def _is_plain(value: Any) -> bool:
    try:
        yaml.safe_dump(value)
    except yaml.YAMLError:
        return False
    return True


class Recorded:
    """The options that a run has been trained with so far.

    Args:
        options: Name -> value.
        source: The file that has them.
    """

    def __init__(self, options: Mapping[str, Any], source: Path) -> None:
        self.options, self.source = options, source

    def changes(self, args: argparse.Namespace, names: Collection[str], changeable: Collection[str] = ()) -> Changes:
        """Return name -> old and new value of the options that differ; of keys and values those that differ.

        Args:
            args: Options of now.
            names: Options to compare; what wasn't recorded (by an older version) isn't.
            changeable: Keys of ``vocoder_conf`` that may differ.
        """
        found = {}
        now = plain_options(args)
        for name in names:
            if name not in self.options or name not in now:
                continue
            old, new = with_numbers(self.options[name]), with_numbers(now[name])
            if name == "lr_halvings":  # text on the command line, numbers in a file
                old, new = ([str(point) for point in points or []] for points in (old, new))
            if isinstance(old, Mapping) and isinstance(new, Mapping):
                keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
                if name == "vocoder_conf":  # complete in both; an older version had fewer options
                    keys = [key for key in keys if key in old and key not in changeable]
                elif name == "feats_extract_conf":
                    keys = [key for key in keys if key in old]
                old, new = ({key: conf[key] for key in keys if key in conf} for conf in (old, new))
            if old != new:
                found[name] = (old, new)
        return found


def check_fixed(recorded: Recorded, args: argparse.Namespace, changeable: Collection[str]) -> None:
    """Refuse what a run can't change.

    Raises:
        ValueError: With the option, both values and where the old one stands.
    """
    changes = recorded.changes(args, FIXED, changeable)
    if args.scheduler is None and recorded.options.get("scheduler") is None:
        changes.pop("scheduler_conf", None)
    for name, (old, new) in changes.items():
        raise ValueError(f"this run can't go on with {name} {new}: {recorded.source} has {old}. {OTHER_RUN}")
    for old, new in recorded.changes(args, ["optim_conf"]).values():
        if args.scheduler is not None and "lr" in {**old, **new}:
            raise ValueError(
                f"this run can't go on with optim_conf {new}: {recorded.source} has {old}, from which scheduler "
                f"{args.scheduler} goes on. {OTHER_RUN}"
            )
        if not all(map(_is_number, [*old.values(), *new.values()])):
            raise ValueError(f"this run can't go on with optim_conf {new}: {recorded.source} has {old}. {OTHER_RUN}")


def _is_number(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_number, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_complete(recorded: Recorded, args: argparse.Namespace, epochs: int) -> None:
    """Refuse what would be taken up by later epochs where there are none; a lower ``max_epoch`` becomes the run's.

    Args:
        recorded: Options of the run.
        args: Options of now; ``max_epoch`` may be changed.
        epochs: Epochs that the run has.

    Raises:
        ValueError: With the option and both values.
    """
    if epochs < args.max_epoch:
        return
    for name, (old, new) in recorded.changes(args, [*BATCHES, *UPDATES]).items():
        raise ValueError(
            f"{name} {new} would change nothing: this run has {epochs} epochs of --max_epoch {args.max_epoch}, with "
            f"{old} ({recorded.source}). Give a larger --max_epoch, or start another run (--output_dir; run.sh: --tag)"
        )
    args.max_epoch = epochs  # config.yaml is to tell what the weights are made by


def check_same_batches(recorded: Recorded, args: argparse.Namespace, epoch: int, stopped: Path) -> None:
    """Refuse other batches in the middle of an epoch.

    Raises:
        ValueError: With the option and both values.
    """
    for name, (old, new) in recorded.changes(args, BATCHES).items():
        raise ValueError(
            f"{name} {new} can't be taken up in the middle of epoch {epoch}, where the run was stopped: it was {old}. "
            f"Go on with that until the epoch is over; or move {stopped} away, and the epoch starts again"
        )
