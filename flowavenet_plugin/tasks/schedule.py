"""Learning rates that follow the training budget."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch.optim.lr_scheduler import LambdaLR


class BudgetHalving(LambdaLR):
    """Halve the learning rate at given parts of the budget; ESPnet2 calls :meth:`step` after each epoch.

    The paper halves after 200, 400 and 600 of 700 thousand iterations: at 2/7, 4/7 and 6/7. A run that is resumed with
    another budget has the learning rate of that budget at once.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.4)
        >>> schedule = BudgetHalving(optimizer, ["1/4", 0.5], max_epoch=4)
        >>> rates = []
        >>> for epoch in range(4):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.4, 0.2, 0.1, 0.1]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, points: Sequence[str | float], max_epoch: int) -> None:
        """Build the schedule.

        Args:
            optimizer: Its learning rate is the one before the first point.
            points: Parts of the budget, above 0 and below 1: numbers, or fractions like "2/7".
            max_epoch: The budget in epochs, which are of one length.

        Raises:
            ValueError: If a point is no such part.
        """
        parts = [_part(point) for point in points]

        def factor(epoch: int) -> float:
            return 0.5 ** sum(epoch >= part * max_epoch for part in parts)

        super().__init__(optimizer, factor)

    def go_on(self, rates: Sequence[float], epochs: int) -> None:
        """Go on after some epochs, whatever the schedule was before.

        Args:
            rates: Learning rate of each group of parameters before the first point.
            epochs: Epochs that are over.
        """
        self.base_lrs = list(rates)
        self.last_epoch = epochs
        self._last_lr = [base * factor(epochs) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, base, rate in zip(self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True):
            group["initial_lr"], group["lr"] = base, rate


def check_halvings(points: Sequence[str | float], scheduler: str | None) -> None:
    """Check an option.

    Args:
        points: As :class:`BudgetHalving` takes them; none: no schedule.
        scheduler: ESPnet2's, if one is asked for.

    Raises:
        ValueError: If a point is no part of a budget, or both are given.
    """
    for point in points:
        _part(point)
    if points and scheduler is not None:
        raise ValueError(f"give scheduler or lr_halvings, not both: scheduler={scheduler} lr_halvings={list(points)}")


def _part(point: str | float) -> Fraction:
    try:
        part = Fraction(str(point))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"lr_halvings: {point!r} is neither a number nor a fraction like 2/7") from error
    if not 0 < part < 1:
        raise ValueError(f"lr_halvings are parts of the budget, above 0 and below 1, not {point}")
    return part
