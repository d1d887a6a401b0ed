"""Watching an epoch of training: updates that had to be skipped, and a line on how it goes."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import humanfriendly
import torch
from espnet2.train.reporter import SubReporter, aggregate, to_reported_value
from torch import nn

from flowavenet_plugin.flow.transforms import ActNorm
from flowavenet_plugin.tasks.stopping import REQUEST, StopAsked

Batch = tuple[list[str], dict[str, Any]]

ADVICE = """What helps, most likely first:
  - a smaller learning rate (--optim_conf lr=5e-4), or a smaller --grad_clip; a run that goes on takes them up
  - --use_amp false, if it is true
  - a look at the utterances named above: clicks, digital silence (--dequantize true), audio far from -1 ... 1
Checkpoints were not touched since the last whole epoch: started again, training goes on from there. To start from the
weights of an earlier epoch: --init_param exp/voc_x/Nepoch.pth (run.sh: --tag NEW --resume exp/voc_x/Nepoch.pth)."""


class WatchedBatches:
    """The batches of an epoch, handed on to ESPnet2's training loop; looks after each at what the loop made of it.

    ESPnet2 skips an update whose gradient isn't finite, on all processes alike, and says no more than a warning. Here
    such updates are counted, and too many in a row end the training.

    Between two updates the epoch can be left, when this process is asked to stop (:mod:`.stopping`), and later gone on
    with: batches that were done before are read once more, so that loading draws the same random numbers.
    """

    def __init__(
        self,
        batches: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        reporter: SubReporter,
        options: Any,
        world_size: int,
    ) -> None:
        """Watch.

        Args:
            batches: The epoch's batches, with a length.
            model: What is trained.
            optimizer: Its optimiser.
            reporter: Of this epoch.
            options: The trainer's options.
            world_size: Number of processes.
        """
        self.batches = batches
        self.model = model
        self.reporter = reporter
        self.options = options
        self.world_size = world_size
        self.interval = options.log_interval or max(len(batches) // 20, 10)
        self.updates = self.skipped = self.in_a_row = self.done = 0
        self._at_start: Callable[[], None] = lambda: None
        self._at_stop: Callable[[dict[str, int]], None] = lambda counts: None
        self._starting = any(not norm.initialized for norm in _act_norms(model))
        self._handle = optimizer.register_step_post_hook(self._count)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def when_stopped(self, note: Callable[[dict[str, int]], None]) -> None:
        """Set what is called with :meth:`counts` where the epoch is left."""
        self._at_stop = note

    def go_on(self, counts: Mapping[str, int], ready: Callable[[], None]) -> None:
        """Start after the iterations that were done before.

        Args:
            counts: From :meth:`counts`.
            ready: Called when those batches are read, before the next is.
        """
        self.done, self._at_start = counts["done"], ready
        self.updates, self.skipped, self.in_a_row = (counts[name] for name in ("updates", "skipped", "in_a_row"))

    def counts(self) -> dict[str, int]:
        """Return how far the epoch is, all that :meth:`go_on` needs."""
        return dict(done=self.done, updates=self.updates, skipped=self.skipped, in_a_row=self.in_a_row)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches one by one.

        Raises:
            RuntimeError: If ``max_skipped`` updates in a row were skipped.
            StopAsked: If this process, or another of this training, was asked to stop.
        """
        ids: list[str] = []
        samples, since = 0, time.perf_counter()
        seen, before = self.updates, self.done
        self._stop_if_asked()
        for number, batch in enumerate(self.batches, 1):
            if number <= before:
                if number == before:
                    self._at_start()
                    since = time.perf_counter()
                continue
            ids += batch[0]
            lengths = batch[1].get("speech_lengths")  # still on the CPU
            samples += (batch[1]["speech"].numel() if lengths is None else int(lengths.sum())) * self.world_size
            yield batch
            # Here the loop asks for the next batch: it is done with this one.
            self.done = number
            if number % self.options.accum_grad == 0:
                self._judge(updated=self.updates > seen, ids=ids)
                seen, ids = self.updates, []
            if number % self.interval == 0:
                seconds = time.perf_counter() - since
                logging.info(self._line(number, self.interval / seconds, samples / seconds))
                samples, since = 0, time.perf_counter()
            # Gradients of part of an update aren't saved; those of an epoch's odd last iterations are lost anyway.
            if number % self.options.accum_grad == 0 or number == len(self):
                self._stop_if_asked(self._at_stop)

    def close(self) -> None:
        """End: report the number of skipped updates as a figure of the epoch.

        Raises:
            RuntimeError: If the epoch had no update at all.
        """
        self._handle.remove()
        if self.updates == 0 and not self.options.no_forward_run:
            if self.skipped:
                raise RuntimeError(f"all {self.skipped} updates of the epoch were skipped.\n{ADVICE}")
            raise RuntimeError(
                f"an epoch of {len(self)} iterations has no update of accum_grad {self.options.accum_grad} iterations"
            )
        self.reporter.stats["skipped_updates"] = [to_reported_value(self.skipped)]

    def _stop_if_asked(self, note: Callable[[dict[str, int]], None] = lambda counts: None) -> None:
        if signal := REQUEST.asked(self.world_size > 1):
            note(self.counts())
            raise StopAsked(signal)

    def _count(self, *_: object) -> None:
        self.updates += 1

    def _judge(self, updated: bool, ids: list[str]) -> None:
        if updated or self.options.no_forward_run:
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        if self._starting and self.updates == 0:
            _restart(self.model)
        logging.warning(
            f"update skipped, the loss or its gradient is not finite: {self.in_a_row} in a row, {self.skipped} in this "
            f"epoch; utterances {' '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}"
        )
        if self.in_a_row >= self.options.max_skipped:
            raise RuntimeError(f"{self.in_a_row} updates in a row were skipped (--max_skipped).\n{ADVICE}")

    def _line(self, number: int, rate: float, samples: float) -> str:
        """Say how it goes: means over the last iterations.

        Args:
            number: Iterations of this epoch so far.
            rate: Iterations per second.
            samples: Samples per second.
        """
        figures = []
        if (likelihood := self._mean("log_likelihood")) is not None:
            parts = [("log p(z)", self._mean("log_p")), ("log-determinant", self._mean("logdet"))]
            text = ", ".join(f"{name} {value:.3f}" for name, value in parts if value is not None)
            figures.append(f"log-likelihood {likelihood:.3f} nats/sample" + (f" ({text})" if text else ""))
        if (norm := self._mean("grad_norm")) is not None:
            figures.append(f"gradient norm {norm:.3g}")
        epoch, last = self.reporter.get_epoch(), self.options.max_epoch
        left = len(self) - number + (last - epoch) * len(self)
        figures.append(f"{rate:.3g} steps/s ({samples / 1000:.4g} k samples/s)")
        figures.append(f"{_peak_memory():.2f} GB")
        figures.append(f"{humanfriendly.format_timespan(round(left / rate))} left")
        return f"epoch {epoch}/{last}, iteration {number}/{len(self)}: " + ", ".join(figures)

    def _mean(self, key: str) -> float | None:
        values = self.reporter.stats.get(key, [])[-self.interval :]
        return float(aggregate(values)) if values else None


def _peak_memory() -> float:
    """Return the most memory held so far, in GB: the GPU's if one is in use, else the process's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def _act_norms(model: nn.Module) -> list[ActNorm]:
    return [module for module in model.modules() if isinstance(module, ActNorm)]


def _restart(model: nn.Module) -> None:
    """Let ActNorm start again from the next batch: what it took from this one is worthless."""
    for norm in _act_norms(model):
        norm.load_state_dict(
            dict(
                loc=torch.zeros_like(norm.loc),
                scale=torch.ones_like(norm.scale),
                initialized=torch.zeros_like(norm.initialized),
            )
        )
