"""Pieces of one task side by side, a thread each: nothing waits between their operators, as it does in shared ones."""

from __future__ import annotations

from collections.abc import Callable

import torch

from flowavenet_plugin.kernels.compiled import functions, in_threads
from flowavenet_plugin.kernels.scratch import Scratch


def run_pieces(work: Callable[[int, Scratch], None], count: int, scratch: Scratch, device: torch.device) -> None:
    """Call ``work(piece, scratch)`` for the pieces 0, ..., count - 1; ``scratch`` are the caller's buffers.

    On a CPU with several threads (``torch.set_num_threads``) and a compiler the pieces are shared out among OpenMP's
    threads. What a piece calls uses no further threads. It must write to places of its own, and take buffers from the
    scratch that it is given only. A thread of OpenMP knows nothing of the caller's modes: inference mode is taken over,
    and autocast is off in all pieces, those of the caller's own thread included.

    Raises:
        BaseException: What a piece raised; those after it in its thread aren't called then.
    """
    threads = min(torch.get_num_threads(), count)
    if threads < 2 or device.type != "cpu" or functions() is None:
        for piece in range(count):
            work(piece, scratch)
        return
    inference, raised = torch.is_inference_mode_enabled(), []

    def share(thread: int) -> None:
        try:
            own = scratch.child(thread)
            with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", enabled=False):
                for piece in range(thread, count, threads):
                    work(piece, own)
        except BaseException as error:  # C can't pass it on
            raised.append(error)

    in_threads(share, threads)
    if raised:
        raise raised[0]
