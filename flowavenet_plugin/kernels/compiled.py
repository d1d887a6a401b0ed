"""The functions of csrc/, compiled at first use if a C compiler is at hand.

Without a compiler (``$CC`` or ``cc``), or if ``FLOWAVENET_FUSED=0``, torch operators compute the same where these
functions are used. The library is kept in ``$FLOWAVENET_CACHE``, by default ``~/.cache/flowavenet_plugin``, under a
name that says for which processor, compiler and source it is.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).with_name("csrc")
SOURCES = tuple(sorted(FOLDER.glob("*.c")))
#: Without -ffast-math, which would change the arithmetic of the whole process.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast")
FLAGS += ("-fopenmp", "-fPIC", "-shared")
#: What the functions for rows of a type end with.
KINDS = {torch.float32: "float", torch.bfloat16: "bf16"}
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_long)


def takes(x: Tensor) -> bool:
    """Whether the functions work on a tensor: on a CPU, of float32 or bfloat16, contiguous."""
    return x.device.type == "cpu" and x.dtype in KINDS and x.is_contiguous() and functions() is not None


def takes_floats(*tensors: Tensor) -> bool:
    """Whether the functions of float32 work on all of these."""
    return all(tensor.dtype == torch.float32 and takes(tensor) for tensor in tensors)


def call(name: str, tensors: tuple[Tensor | None, ...], *numbers: float) -> int:
    """Hand a function the tensors' memory (null for None), integers and floats as such, and the number of threads."""
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    values = [ctypes.c_float(n) if isinstance(n, float) else ctypes.c_long(n) for n in numbers]
    return getattr(functions(), name)(*pointers, *values, ctypes.c_long(torch.get_num_threads()))


def in_threads(work: Callable[[int], None], threads: int) -> None:
    """Call work(0), ..., work(threads - 1), a thread of OpenMP each; it must not raise."""
    functions().in_threads(_WORK(work), ctypes.c_long(threads))


@functools.cache
def functions() -> ctypes.CDLL | None:
    """Return the compiled functions; None: there is no compiler, or they aren't wanted."""
    if os.environ.get("FLOWAVENET_FUSED", "1") == "0":
        return None
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # no home: RuntimeError
        logging.debug(f"kernels/csrc isn't used: {error}")
        return None


def _compiled() -> Path:
    """Return the shared library, compiled unless it was before."""
    compiler = os.environ.get("CC", "cc").split()
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    sources = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
    known = [*sources, version, " ".join((*compiler, *FLAGS)).encode(), _processor()]
    name = f"kernels-{hashlib.sha256(b'|'.join(known)).hexdigest()[:16]}.so"
    folder = Path(os.environ.get("FLOWAVENET_CACHE") or Path.home() / ".cache/flowavenet_plugin")
    if (folder / name).exists():
        return folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:  # renamed when whole: other processes may do the same
        made = Path(work) / name
        subprocess.run([*compiler, *FLAGS, *map(str, SOURCES), "-o", str(made), "-lm"], capture_output=True, check=True)
        made.replace(folder / name)
    return folder / name


def _processor() -> bytes:
    """Say what -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"model", b"Features"))}))
    except OSError:
        return platform.processor().encode()
