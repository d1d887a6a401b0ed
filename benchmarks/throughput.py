"""Batches per second, and how far that is from the machine's peak, for ``synthesis.py``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow import FloWaveNet


def flops_per_sample(flow: FloWaveNet) -> float:
    """Count the floating-point operations of the WaveNets' convolutions for one sample, 2 per multiplication."""
    total = 0.0
    for plan, block in zip(flow.plan, flow.blocks, strict=True):
        convs = (module for module in block.modules() if isinstance(module, nn.Conv1d))
        total += sum(2 * c.out_channels * c.in_channels * c.kernel_size[0] for c in convs) / 2**plan.level
    return total


def peak_flops(device: str, dtype: torch.dtype, size: int = 8192, repeats: int = 10) -> float:
    """Measure floating-point operations per second of a product of two square matrices, the best of some."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = [seconds(lambda: torch.mm(a, b), device) for _ in range(repeats + 1)]
    return 2 * size**3 / min(times[1:])


def seconds(work: Callable[[], Tensor], device: str) -> float:
    """Time some work, until the device has done it."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    """Wait until the device has nothing left to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@torch.no_grad()
def batches(
    run: Callable[[Tensor, Tensor], Tensor], noise: Tensor, cond: Tensor, sizes: list[int], repeats: int
) -> list[dict[str, float]]:
    """Measure batches of copies of an utterance.

    Args:
        run: From noise (B, 1, T) and conditioning (B, n_mels, frames) to audio.
        noise: Of one, shape (1, 1, T).
        cond: Of one, shape (1, n_mels, frames).
        sizes: Utterances at once.
        repeats: Runs of each; the first isn't counted, medians count.

    Returns:
        Of each size: seconds and samples per second.
    """
    rows = []
    for size in sizes:
        many = noise.expand(size, -1, -1).contiguous(), cond.expand(size, -1, -1).contiguous()
        times = [seconds(lambda: run(*many), noise.device.type) for _ in range(repeats + 1)]  # noqa: B023
        taken = statistics.median(times[1:])
        rows.append(dict(batch=size, seconds=taken, samples_per_second=size * noise.shape[2] / taken))
    return rows
