"""Checkpoints that survive a kill at any moment: files are whole or absent, what a kill left undone is made good."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.train.reporter import Reporter

from flowavenet_plugin.data.partial import partial_path
from flowavenet_plugin.vocoder.loading import read_tensors

#: Where a checkpoint holds the options that trained it: config.yaml is those of the last start, which may have come to
#: nothing.
RECORD = "options"
CHECKPOINT = "checkpoint.pth"
#: The middle of the epoch after that of the checkpoint.
STOPPED = "stopped.pth"


@contextlib.contextmanager
def whole_files_only(options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """While open, ``torch.save`` gives a file its name only when it is whole and on the disk.

    ESPnet2's trainer writes over its only checkpoint, and offers no hook at that place; so ``torch.save`` itself is
    replaced, for as long as the trainer runs.

    Args:
        options: What ``checkpoint.pth`` is to tell of the training.
    """
    plain_save = torch.save

    def save(obj: object, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            plain_save(obj, f, *args, **kwargs)
            return
        if options is not None and Path(f).name == CHECKPOINT and isinstance(obj, Mapping):
            obj = {**obj, RECORD: dict(options)}
        partial = partial_path(Path(f))
        try:
            with open(partial, "wb") as file:
                plain_save(obj, file, *args, **kwargs)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
            partial.unlink(missing_ok=True)
            free = shutil.disk_usage(partial.parent).free / 2**30
            raise OSError(
                f"{f} could not be written ({free:.2f} GB are free there): {error}. What was there before is "
                "untouched: started again, training goes on after the last whole epoch"
            ) from error
        os.replace(partial, f)
        if Path(f).name == CHECKPOINT:
            Path(f).with_name(STOPPED).unlink(missing_ok=True)  # the middle of an epoch that is whole now

    torch.save = save
    try:
        yield
    finally:
        torch.save = plain_save


def check_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint that was cut short.

    Raises:
        ValueError: If it is no whole archive of ``torch.save``; the message says how to go on.
    """
    if _is_whole(checkpoint):
        return
    broken = f"{checkpoint} is broken: {checkpoint.stat().st_size} bytes, and its end is missing."
    if checkpoint.name == STOPPED:
        raise ValueError(
            f"{broken} What was trained since the last whole epoch is lost. Move the file away and start again: "
            "training goes on after that epoch"
        )
    epochs = sorted(checkpoint.parent.glob("*epoch.pth"), key=lambda path: path.stat().st_mtime)
    weights = epochs[-1] if epochs else "an earlier Nepoch.pth"
    raise ValueError(
        f"{broken} The optimiser's state is lost. Move the file away and start again, from these weights: "
        f"--init_param {weights} (run.sh: --tag NEW --resume {weights})"
    )


def _is_whole(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # an end that contradicts itself
        return False


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read checkpoint.pth, tensors from the disk when they are used.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is broken, holds code, or isn't ESPnet2's.
    """
    states = read_tensors(path, mmap=True)
    reporter = states.get("reporter") if isinstance(states, dict) else None
    known = isinstance(reporter, dict) and isinstance(reporter.get("epoch"), int)
    if not (known and isinstance(states.get("model"), dict) and _are_figures(reporter.get("stats"))):
        raise ValueError(f"{path} is broken or no checkpoint: it has no model, or no figures of epochs")
    return states


def _are_figures(stats: object) -> bool:
    """Whether this is epoch -> phase -> figure -> value."""
    return isinstance(stats, dict) and all(
        isinstance(epoch, int) and isinstance(phases, dict) and all(isinstance(each, dict) for each in phases.values())
        for epoch, phases in stats.items()
    )


def finish_last_epoch(output_dir: Path, criteria: Sequence[Sequence[str]]) -> None:
    """Write what belongs to the epoch of checkpoint.pth and a kill may have left out: its weights and links.

    Args:
        output_dir: Folder of the experiment.
        criteria: ESPnet2's ``best_model_criterion``: phase, figure, "min" or "max".
    """
    states = read_checkpoint(output_dir / CHECKPOINT)
    reporter = Reporter()
    reporter.load_state_dict(states["reporter"])
    weights = f"{reporter.get_epoch()}epoch.pth"
    if not _is_whole(output_dir / weights):
        torch.save(states["model"], output_dir / weights)
    link(output_dir / "latest.pth", weights)
    for phase, key, mode in criteria:
        if reporter.has(phase, key) and reporter.get_best_epoch(phase, key, mode) == reporter.get_epoch():
            link(output_dir / f"{phase}.{key}.best.pth", weights)


def epochs_of(checkpoint: Path) -> int:
    """Return the number of whole epochs of a run; 0 where there is no checkpoint."""
    if not checkpoint.exists():
        return 0
    return read_checkpoint(checkpoint)["reporter"]["epoch"]


def set_average_aside(output_dir: Path, epochs: int) -> None:
    """Rename the average of a run that goes on without one: it would pass for that of the new weights."""
    path = output_dir / "ema.pth"
    if path.exists():
        os.replace(path, output_dir / f"ema.till{epochs}epoch.pth")


def link(path: Path, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, at once."""
    partial = partial_path(path)
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    os.replace(partial, path)
