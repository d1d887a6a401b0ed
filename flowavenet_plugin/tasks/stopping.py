"""A training that is asked to stop: by SIGTERM (the end of a job's time, a preemption) or SIGUSR1."""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, NoReturn

import torch

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopAsked(Exception):
    """Ends ESPnet2's loops, between two iterations.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopRequest:
    """Remembers that this process was asked to stop.

    In the process that only starts and awaits others (ESPnet2's, one for each GPU) it hands the signal on to them.
    """

    def __init__(self) -> None:
        self.number = 0
        self.hand_on = False

    def asked(self, distributed: bool = False) -> int:
        """Return the signal that came, 0 if none did; of several processes any one's, the same in all."""
        if not distributed:
            return self.number
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        number = torch.tensor(self.number, device=device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number)

    @contextlib.contextmanager
    def listen(self, hand_on: bool = False) -> Iterator[None]:
        """Take signals while open; they do what they did before afterwards. May be opened within itself.

        Args:
            hand_on: This process only awaits others, as long as it isn't opened within itself.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only there signals can be taken
            return
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        outer, self.hand_on = self.hand_on, hand_on
        if self._take not in before.values():
            self.number = 0
        try:
            yield
        finally:
            self.hand_on = outer
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.hand_on:
            for process in multiprocessing.active_children():
                os.kill(process.pid, number)
        elif not self.number:
            logging.warning(f"{signal.Signals(number).name}: the iteration is finished and saved, then training ends")
        self.number = number


#: Of this process; signals belong to processes.
REQUEST = StopRequest()


def listening(args: argparse.Namespace, hand_on: bool = False) -> contextlib.AbstractContextManager[None]:
    """Take signals while open, where a training can answer them; anything else they end at once.

    Args:
        args: Options of the training.
        hand_on: See :meth:`StopRequest.listen`.
    """
    trains = not (args.collect_stats or args.dry_run or args.print_config)
    return REQUEST.listen(hand_on) if trains else contextlib.nullcontext()


def leave_group() -> None:
    """End the group of processes that train together, if this is one of several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # a process that ends before its threads do may abort


def end_stopped(stop: StopAsked, distributed: bool) -> NoReturn:
    """End this process when all is saved, with the status of one that the signal ended: 128 and its number.

    Raises:
        SystemExit: Always.
    """
    if distributed:
        torch.distributed.barrier()  # launchers kill what is left when the first process has ended
        # gloo's thread lets go of the tensors of collectives when they are over, for which it needs Python's lock. Were
        # the group taken down meanwhile, by whoever has that lock, each would wait for the other. The second barrier is
        # waited for without it, and begins when all before it is let go.
        torch.distributed.barrier()
    logging.warning(f"Training was stopped by {signal.Signals(stop.number).name}. Started again, it goes on from there")
    raise SystemExit(128 + stop.number)


class Batches:
    """Batches of ESPnet2's loader; the processes that load them outlive a signal that all processes of a job get.

    A dead loader would end the iteration that is to be finished. So the signals are blocked in them, which is
    inherited; and as they then don't end by a signal, :meth:`close` ends them.
    """

    def __init__(self, loader: Iterable[Any], may_stop: bool = False) -> None:
        """Keep the loader.

        Args:
            loader: The batches.
            may_stop: Raise :class:`StopAsked` between two batches if this process was asked to stop.
        """
        self._loader, self._may_stop = loader, may_stop
        self._open: Any = None

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """Give the batches one by one.

        Raises:
            StopAsked: If that may be.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._open = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for batch in self._open:
            if self._may_stop and REQUEST.number:
                raise StopAsked(REQUEST.number)
            yield batch

    def close(self) -> None:
        """End the processes that load, if there are some."""
        shut = getattr(self._open, "_shutdown_workers", None)
        self._open = None
        if shut is not None:
            shut()
