"""The best epochs: their averages, and the best of the moving averages."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.train import trainer as espnet_trainer
from espnet2.train.reporter import Reporter
from torch import Tensor

from flowavenet_plugin.tasks.refusals import EMA_CRITERION, as_list
from flowavenet_plugin.tasks.saving import link, read_checkpoint


class BestAverages:
    """Keep the moving averages of the best epochs by their own loss, as ESPnet2 keeps plain weights of the best."""

    def __init__(self, folder: Path, mode: str, counts: int | Sequence[int], losses: Mapping[int, float]) -> None:
        """Go on from what is there.

        Args:
            folder: Of the experiment.
            mode: "min" or "max".
            counts: ESPnet2's ``keep_nbest_models``.
            losses: Of epochs before.
        """
        self.folder = folder
        self.mode = mode
        self.counts = as_list(counts)
        self.losses = dict(losses)

    def keep(self, epoch: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Save an epoch's averaged weights if they are among the best, and forget those that aren't any more."""
        if not math.isfinite(loss):
            return
        self.losses[epoch] = loss
        ranked = self.ranked(epoch)
        best, others = ranked[: max(self.counts)], ranked[max(self.counts) :]
        if epoch in best:
            torch.save(weights, self._path(epoch))
            link(self.folder / f"{'.'.join(EMA_CRITERION)}.best.pth", self._path(best[0]).name)
        for other in others:
            self._path(other).unlink(missing_ok=True)

    def ranked(self, new: int | None = None) -> list[int]:
        """Return the epochs whose averaged weights are there, or will be (``new``), the best first."""
        there = {e: loss for e, loss in self.losses.items() if e == new or self._path(e).exists()}
        return _ranked(there, self.mode)

    def average(self, suffix: str = "") -> None:
        """Write the averages of the best."""
        paths = [self._path(epoch) for epoch in self.ranked()]
        _write_averages(paths, self.counts, self.folder / ".".join(EMA_CRITERION), suffix)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{epoch}epoch.ema.pth"


@contextlib.contextmanager
def averages_of_the_best(best_averages: BestAverages | None) -> Iterator[None]:
    """While open, ESPnet2's trainer averages by :func:`average_nbest_models` of this file, and moving averages too.

    That of ESPnet2 202511 adds up in the weights that it keeps for the next average, and stops at an epoch whose
    weights are gone. It offers no hook at that place; so the name in its trainer is replaced.
    """
    plain = espnet_trainer.average_nbest_models

    def average(
        output_dir: Path, reporter: Reporter, best_model_criterion: Sequence[Sequence[str]], **options: object
    ) -> None:
        average_nbest_models(output_dir, reporter, best_model_criterion, **options)
        if best_averages is not None:
            best_averages.average(_suffix(options.get("suffix")))

    espnet_trainer.average_nbest_models = average
    try:
        yield
    finally:
        espnet_trainer.average_nbest_models = plain


def average_nbest_models(
    output_dir: Path,
    reporter: Reporter,
    best_model_criterion: Sequence[Sequence[str]],
    nbest: Collection[int] | int,
    suffix: str | None = None,
) -> None:
    """Average the weights of the best epochs: ESPnet2's function of this name, files and links as there.

    Args:
        output_dir: Folder of the experiment.
        reporter: With the figures of all epochs.
        best_model_criterion: Phase, figure, "min" or "max", of each.
        nbest: Numbers of epochs to average. Of epochs whose weights are gone the next best count.
        suffix: Part of the files' names.
    """
    for phase, key, mode in best_model_criterion:
        figures = _figures(reporter.stats, phase, key)
        paths = [output_dir / f"{epoch}epoch.pth" for epoch in _ranked(figures, mode)]
        there = [path for path in paths if path.exists()]
        _write_averages(there, as_list(nbest), output_dir / f"{phase}.{key}", _suffix(suffix))


def take_best_averages(options: Any, checkpoint: Path | None) -> None:
    """Take the criteria of averaged weights from ESPnet2, which would link an epoch's plain weights by them.

    Args:
        options: Of the trainer; get ``best_averages`` if there is such a criterion.
        checkpoint: Of a run that goes on, or None.
    """
    own = [mode for phase, key, mode in options.best_model_criterion if (phase, key) == EMA_CRITERION]
    if not own:
        return
    options.best_model_criterion = [c for c in options.best_model_criterion if tuple(c[:2]) != EMA_CRITERION]
    losses = past_figures(checkpoint, *EMA_CRITERION) if checkpoint else {}
    options.best_averages = BestAverages(Path(options.output_dir), own[0], options.keep_nbest_models, losses)


def past_figures(checkpoint: Path, phase: str, key: str) -> dict[int, float]:
    """Read a figure of all epochs that a checkpoint knows it of."""
    states = read_checkpoint(checkpoint)
    return _figures(states["reporter"]["stats"], phase, key)


def _figures(stats: Mapping[int, Mapping[str, Mapping[str, float]]], phase: str, key: str) -> dict[int, float]:
    known = {epoch: phases[phase][key] for epoch, phases in stats.items() if key in phases.get(phase, {})}
    return {epoch: float(value) for epoch, value in known.items()}


def _ranked(figures: Mapping[int, float], mode: str) -> list[int]:
    if mode not in ("min", "max"):
        raise ValueError(f"best_model_criterion: the mode is min or max, not {mode!r}")
    sign = 1 if mode == "min" else -1
    finite = {epoch: value for epoch, value in figures.items() if math.isfinite(value)}
    return sorted(finite, key=lambda epoch: sign * finite[epoch])


def _suffix(suffix: object) -> str:
    return f"{suffix}." if suffix else ""


@torch.no_grad()
def _write_averages(paths: Sequence[Path], counts: Sequence[int], name: Path, suffix: str) -> None:
    """Write ``<name>.ave_<n>best.<suffix>pth`` for each n, and the link ``<name>.ave.<suffix>pth`` to the largest.

    Args:
        paths: Weights, the best first.
        counts: The n; those of which there are so many weights, or else 1.
        name: Folder and first part of the name.
        suffix: Empty, or ends with a point.
    """
    if not paths:
        return
    possible = sorted({count for count in counts if count <= len(paths)}) or [1]
    if max(counts) > len(paths):
        logging.warning(f"{name.name}: {len(paths)} epochs are there, so that {max(counts)} can't be averaged")
    total: dict[str, Tensor] = {}
    for number, path in enumerate(paths[: possible[-1]], 1):
        for key, value in torch.load(path, map_location="cpu", weights_only=True).items():
            if key not in total:
                total[key] = value.clone()
            elif value.is_floating_point():
                total[key] += value  # whole numbers stay those of the best epoch
        target = name.with_name(f"{name.name}.ave_{number}best.{suffix}pth")
        if number == 1 and 1 in possible:
            link(target, path.name)
        elif number in possible:
            logging.info(f"Averaging the {number} best epochs: {target}")
            means = {key: value / number if value.is_floating_point() else value for key, value in total.items()}
            torch.save(means, target)
    link(name.with_name(f"{name.name}.ave.{suffix}pth"), f"{name.name}.ave_{possible[-1]}best.{suffix}pth")
