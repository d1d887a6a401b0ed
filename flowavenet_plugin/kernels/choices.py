"""What users set of the ways that compute the same on a CPU, see :mod:`.backends` for all of them.

Environment variables, read whenever something is decided:

``FLOWAVENET_FUSED``: ``1`` (default): the compiled functions of csrc/ where there is a C compiler; ``0``: torch only.
``FLOWAVENET_MARCH``: instructions that these are compiled for, as the compiler's ``-march`` names them; ``native``
(default): all that this processor has; ``x86-64-v3``: AVX2; ``x86-64-v4``: AVX-512 without bfloat16.
``FLOWAVENET_BFLOAT16``: who multiplies in bfloat16. ``compiled``: the functions of csrc/, with convolutions by fewer
products; ``libraries``: those behind PyTorch; ``auto`` (default): the libraries where they have units for matrices
(AMX), else the compiled functions.

What can't be taken, for want of a compiler for instance, is left to torch whatever is chosen.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

FUSED, MARCH, BFLOAT16 = "FLOWAVENET_FUSED", "FLOWAVENET_MARCH", "FLOWAVENET_BFLOAT16"


def wants_compiled() -> bool:
    """Say whether compiled functions are wanted at all.

    Raises:
        ValueError: If the variable holds anything else than 0 or 1.
    """
    return _setting(FUSED, "1", "0") == "1"


def march() -> str:
    """Return the instructions to compile for."""
    return os.environ.get(MARCH) or "native"


def wants_compiled_products(dtype: torch.dtype) -> bool:
    """Say whether products in this precision are left to compiled functions, if there are some, or to the libraries.

    Raises:
        ValueError: If the variable holds something unknown.
    """
    chosen = _setting(BFLOAT16, "auto", "compiled", "libraries")
    if dtype != torch.bfloat16 or chosen == "compiled":
        return True
    return chosen == "auto" and not libraries_have_matrix_units()


def libraries_have_matrix_units() -> bool:
    """Say whether the processor has units for products of matrices (AMX) that oneDNN, behind PyTorch, may use."""
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if most not in ("", "ALL", "DEFAULT") and "AMX" not in most:
        return False
    asks = getattr(torch.cpu, "_is_amx_tile_supported", None)  # not in every version of torch
    return _cpu_flag("amx_bf16") if asks is None else bool(asks())


def _cpu_flag(name: str) -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return any(name in line.split() for line in lines if line.startswith("flags"))


def _setting(name: str, *known: str) -> str:
    """Return what an environment variable holds; the first of the known values if nothing."""
    value = os.environ.get(name) or known[0]
    if value not in known:
        raise ValueError(f"{name}={value}: it must be one of {', '.join(known)}")
    return value
