"""The exponential moving average of the weights in training (EMA)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: Where an optimiser keeps averages (in the state of each parameter) and their number of updates (in its first group).
AVERAGE, UPDATES = "ema", "ema_updates"


def check_decay(decay: float) -> None:
    """Check an option.

    Raises:
        ValueError: If it is neither 0 nor a decay.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema_decay must be above 0 and below 1 (or 0: no average), not {decay}")


class WeightAverage:
    """Follow an optimiser's parameters: average = decay * average + (1 - decay) * parameter after each update.

    The averages live in the optimiser's state, so that ESPnet2's checkpoints hold them and a resumed run goes on with
    them. Early averages forget faster (decay at most (1 + n) / (10 + n) after n updates): the start is soon gone.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay: float) -> None:
        """Follow the optimiser from now on.

        Args:
            optimizer: The optimiser.
            decay: Above 0 and below 1; about 1 / (1 - decay) updates are averaged.

        Raises:
            ValueError: If the decay is out of range.
        """
        if decay == 0:
            raise ValueError(f"ema_decay must be above 0 for an average, not {decay}")
        check_decay(decay)
        self.optimizer = optimizer
        self.decay = decay
        optimizer.param_groups[0].setdefault(UPDATES, 0)
        optimizer.register_step_post_hook(lambda *_: self.update())

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters of now into the averages."""
        group = self.optimizer.param_groups[0]
        updates = group[UPDATES]
        group[UPDATES] = updates + 1
        decay = min(self.decay, (1 + updates) / (10 + updates))
        known = []
        for parameter in self._trained():
            state = self.optimizer.state[parameter]
            if AVERAGE in state:
                known.append((state[AVERAGE], parameter))
            else:
                state[AVERAGE] = parameter.detach().clone()
        if known:
            averages, parameters = zip(*known, strict=True)
            torch._foreach_lerp_(list(averages), list(parameters), 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """While open, the parameters hold their averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter in self._all():  # what isn't trained any more has an average, too
            average = self.optimizer.state.get(parameter, {}).get(AVERAGE)
            if average is not None:
                kept = parameter.clone()
                parameter.copy_(average)
                average.copy_(kept)

    def _trained(self) -> Iterator[Tensor | nn.Parameter]:
        return (parameter for parameter in self._all() if parameter.requires_grad)

    def _all(self) -> Iterator[Tensor | nn.Parameter]:
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])
