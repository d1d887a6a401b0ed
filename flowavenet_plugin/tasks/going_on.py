"""A resumed run with the options of now: what optimisers and schedulers take from a checkpoint, and what not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flowavenet_plugin.tasks.averaging import AVERAGE, UPDATES
from flowavenet_plugin.tasks.schedule import BudgetHalving

#: Of each optimiser's groups of parameters: name -> value.
Hyper = list[list[dict[str, Any]]]


def hyper_parameters(optimizers: Sequence[torch.optim.Optimizer]) -> Hyper:
    """Return what the options made of the optimisers, before a checkpoint is loaded into them."""
    return [
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        for optimizer in optimizers
    ]


def take_up(optimizers: Sequence[torch.optim.Optimizer], schedulers: Sequence[Any], now: Hyper, epochs: int) -> None:
    """Give optimisers and schedulers, as a checkpoint left them, the options of now.

    Args:
        optimizers: The optimisers.
        schedulers: Their schedulers, each may be None.
        now: From :func:`hyper_parameters`.
        epochs: Whole epochs that the run has.
    """
    for optimizer, scheduler, groups in zip(optimizers, schedulers, now, strict=True):
        rates = [group.get("initial_lr", group["lr"]) for group in groups]
        for group, wanted in zip(optimizer.param_groups, groups, strict=True):
            group.update({key: value for key, value in wanted.items() if key not in ("lr", "initial_lr", UPDATES)})
        _take_up_average(optimizer, averaged=UPDATES in groups[0])
        if isinstance(scheduler, BudgetHalving):
            scheduler.go_on(rates, epochs)
        elif scheduler is None:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
                group.pop("initial_lr", None)


def _take_up_average(optimizer: torch.optim.Optimizer, averaged: bool) -> None:
    """Drop an average that isn't wanted any more: it would be out of date when it is wanted again."""
    group = optimizer.param_groups[0]
    if averaged:
        group.setdefault(UPDATES, 0)
        return
    group.pop(UPDATES, None)
    for state in optimizer.state.values():
        state.pop(AVERAGE, None)
