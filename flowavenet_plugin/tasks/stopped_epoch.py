"""The middle of an epoch on disk: what a training that was stopped there needs to go on as if nothing had happened."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.train.reporter import SubReporter, WeightedAverage, to_reported_value
from torch import nn

from flowavenet_plugin.data.partial import remove_partial
from flowavenet_plugin.tasks.saving import (
    CHECKPOINT,
    RECORD,
    STOPPED,
    check_whole,
    epochs_of,
    finish_last_epoch,
    set_average_aside,
)
from flowavenet_plugin.vocoder.loading import read_tensors


def random_states() -> dict[str, Any]:
    """Return the states of all random generators of this process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set all random generators of this process."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def reporter_state(reporter: SubReporter) -> dict[str, Any]:
    """Return the figures of an epoch so far, as plain values."""
    values = {
        key: [(float(item.value), float(item.weight) if isinstance(item, WeightedAverage) else None) for item in items]
        for key, items in reporter.stats.items()
    }
    elapsed = time.perf_counter() - reporter.start_time
    return dict(stats=values, count=reporter.count, total_count=reporter.total_count, elapsed=elapsed)


def set_reporter_state(reporter: SubReporter, state: Mapping[str, Any]) -> None:
    """Go on with the figures of an epoch."""
    for key, items in state["stats"].items():
        reporter.stats[key] = [to_reported_value(value, weight) for value, weight in items]
    reporter.count, reporter.total_count = state["count"], state["total_count"]
    reporter.start_time = time.perf_counter() - state["elapsed"]


class EpochUnderWay:
    """All of the epoch that a training is in.

    Attributes:
        random: States of the random generators after the last iteration; of all processes where there are several.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        scaler: Any,
        reporter: SubReporter,
    ) -> None:
        """Keep what changes.

        Args:
            model: What is trained.
            optimizers: Its optimisers.
            schedulers: Their schedulers, each may be None.
            scaler: Of the gradients with float16, or None.
            reporter: Of this epoch.
        """
        self.model = getattr(model, "module", model)
        self.optimizers, self.schedulers, self.scaler, self.reporter = optimizers, schedulers, scaler, reporter
        self.counts: dict[str, int] = {}
        self.random: list[dict[str, Any]] = []

    def note(self, counts: Mapping[str, int], world_size: int) -> None:
        """Remember where the epoch is, in all processes; called by all of them after the same iteration."""
        self.counts = dict(counts)
        mine = random_states()
        self.random = [mine] * world_size
        if world_size > 1:
            torch.distributed.all_gather_object(self.random, mine)

    def save(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Write ``stopped.pth``."""
        states = {
            "epoch": self.reporter.get_epoch(),
            "counts": self.counts,
            "random": self.random,
            "train": reporter_state(self.reporter),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler and scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler and self.scaler.state_dict(),
            RECORD: dict(options),
        }
        torch.save(states, folder / STOPPED)

    def restore(self, states: Mapping[str, Any]) -> dict[str, int]:
        """Take up what :meth:`save` wrote, but for the random generators.

        Returns:
            Where the epoch is: what :meth:`note` was given.
        """
        self.model.load_state_dict(states["model"])
        for optimizer, state in zip(self.optimizers, states["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for scheduler, state in zip(self.schedulers, states["schedulers"], strict=True):
            if scheduler is not None and state is not None:
                scheduler.load_state_dict(state)
        if self.scaler is not None and states["scaler"] is not None:
            self.scaler.load_state_dict(states["scaler"])
        set_reporter_state(self.reporter, states["train"])
        return dict(states["counts"])


def restore_random_states(states: Mapping[str, Any], rank: int, world_size: int) -> None:
    """Take up the random generators of this process."""
    if len(states["random"]) == world_size:
        set_random_states(states["random"][rank])
    else:
        logging.warning(f"stopped with {len(states['random'])} processes, now {world_size}: other random numbers")


def read_stopped(folder: Path, epochs: int) -> dict[str, Any] | None:
    """Read ``stopped.pth``.

    Args:
        folder: Of the experiment.
        epochs: Whole epochs that ``checkpoint.pth`` has; 0: there is none.

    Returns:
        Its content; None if it isn't there, or of an epoch that is over by now.

    Raises:
        ValueError: If it is broken, or epochs between it and the checkpoint are missing.
    """
    path = folder / STOPPED
    if not path.exists():
        return None
    check_whole(path)
    states = read_tensors(path, mmap=True)
    if not isinstance(states, dict) or not isinstance(states.get("epoch"), int) or "model" not in states:
        raise ValueError(f"{path} is broken: it isn't the middle of an epoch")
    if states["epoch"] <= epochs:
        return None
    if states["epoch"] > epochs + 1:
        raise ValueError(
            f"{path} is of the middle of epoch {states['epoch']}, but checkpoint.pth beside it has {epochs} epochs: "
            "move one of them away"
        )
    return states


def put_in_order(options: Any, first: bool) -> dict[str, Any] | None:
    """Make good what a kill left undone, and set aside what would pass for this run's.

    Args:
        options: Of the trainer.
        first: This process is the one that writes.

    Returns:
        The middle of an epoch to go on with, None: there is none.
    """
    folder = Path(options.output_dir)
    if not options.resume:
        if first:
            (folder / STOPPED).unlink(missing_ok=True)
        return None
    epochs = epochs_of(folder / CHECKPOINT)
    if first:
        remove_partial(folder)
        if epochs:
            finish_last_epoch(folder, options.best_model_criterion)
        if options.average is None:
            set_average_aside(folder, epochs)
    return read_stopped(folder, epochs)
