"""The ways to compute the same on a CPU, each of which is tested wherever the processor can go it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flowavenet_plugin.kernels import choices, compiled

#: What the compiled functions may use, and the flags that a processor needs for it; the first: all that there is.
INSTRUCTIONS: dict[str, frozenset[str]] = {
    "native": frozenset(),
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "fma"}),
    "x86-64-v3": frozenset({"avx2", "bmi1", "bmi2", "fma", "f16c"}),
}
#: No compiled function at all.
TORCH = "torch"


def missing_flags(instructions: str) -> list[str]:
    """Name what the processor lacks."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return sorted(INSTRUCTIONS[instructions] - flags)


def chosen(name: str) -> Iterator[str]:
    """Take one of the ways, whatever would be chosen here; skip what can't be gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(choices.FUSED, "0" if name == TORCH else "1")
        patch.setenv(choices.BFLOAT16, "compiled")
        if name != TORCH:
            if missing := missing_flags(name):
                pytest.skip(f"this processor has no {', '.join(missing)}")
            patch.setenv(choices.MARCH, name)
        compiled.functions.cache_clear()
        if name != TORCH and compiled.functions() is None:
            pytest.skip("no C compiler ($CC, else cc)")
        yield name
    compiled.functions.cache_clear()


@pytest.fixture(scope="module", params=INSTRUCTIONS)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compiled functions, for each set of instructions."""
    yield from chosen(request.param)


@pytest.fixture(scope="module", params=[*INSTRUCTIONS, TORCH])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compiled functions, for each set of instructions, and torch without them."""
    yield from chosen(request.param)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
