"""Sums, gates and norms in few passes over memory, compiled from fused.c at first use if a C compiler is at hand.

What is computed is that of :mod:`.convolution`, :mod:`.gated_stack` and :mod:`.weight_norm`, and of torch operators
there if there is no compiler (``$CC`` or ``cc``), or if ``FLOWAVENET_FUSED=0``. The library is kept in
``$FLOWAVENET_CACHE``, by default ``~/.cache/flowavenet_plugin``, under a name that says for which processor, compiler
and source it is.
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

SOURCE = Path(__file__).with_name("fused.c")
#: Without -ffast-math, which would change the arithmetic of the whole process.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast")
FLAGS += ("-fopenmp", "-fPIC", "-shared")
NAMES = {torch.float32: "float", torch.bfloat16: "bf16"}
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_long)


def takes(x: Tensor) -> bool:
    """Whether the functions here work on a tensor: on a CPU, of float32 or bfloat16, contiguous."""
    return x.device.type == "cpu" and x.dtype in NAMES and x.is_contiguous() and functions() is not None


def takes_weights(*weights: Tensor) -> bool:
    """Whether the functions of weights work on all of these: as :func:`takes`, of float32."""
    return all(weight.dtype == torch.float32 and takes(weight) for weight in weights)


def inputs(h: Tensor, first: int, dilation: int, out: Tensor) -> Tensor:
    """Transform the inputs of tiles of four outputs, B' d, see :class:`.convolution.WinogradConvolution`.

    Args:
        h: Shape (rows, width), contiguous.
        first: Row that the first tile begins with.
        dilation: Rows from tap to tap.
        out: Written, shape (6, tiles * dilation, width).
    """
    _call(f"inputs_{NAMES[h.dtype]}", (h[first:], out), *_tiles(out, dilation))
    return out


def add_outputs(y: Tensor, dilation: int, out: Tensor) -> None:
    """Add A' y, (6, tiles * dilation, width), to the rows of ``out``, (4 * tiles * dilation, width)."""
    _call(f"outputs_{NAMES[y.dtype]}", (y, out), *_tiles(y, dilation))


def gradients(grad: Tensor, dilation: int, out: Tensor) -> Tensor:
    """Write A dy of the rows ``grad`` to ``out``; shapes as in :func:`add_outputs`."""
    _call(f"gradients_{NAMES[out.dtype]}", (grad, out), *_tiles(out, dilation))
    return out


def add_input_gradients(x: Tensor, first: int, dilation: int, grad: Tensor) -> None:
    """Add B x, (6, tiles * dilation, width), to the rows of ``grad`` that the tiles read, from ``first`` on."""
    _call(f"input_gradients_{NAMES[x.dtype]}", (x, grad[first:]), *_tiles(x, dilation))


def gate(y: Tensor, pre: Tensor, bias: Tensor, dilation: int, out: Tensor, keep: bool = False) -> Tensor:
    """Write b - 2 a b, with a and b the sigmoids of the two halves of bias + pre + A' y.

    Args:
        y: The six products of each tile, shape (6, tiles * dilation, 2 * width), contiguous.
        pre: What is added to the convolution, shape (rows, 2 * width), contiguous.
        bias: Of the precision of ``pre``, as all here, shape (2 * width,).
        dilation: Rows from tap to tap.
        out: Written, shape (rows, width), contiguous.
        keep: Write the sigmoids to ``pre``.
    """
    sizes = (len(out), y.shape[1] // dilation, dilation, out.shape[1], int(keep))
    _call(f"gate_{NAMES[y.dtype]}", (y, pre, bias, out), *sizes)
    return out


def plain_gate(pre: Tensor, bias: Tensor, out: Tensor) -> None:
    """As :func:`gate` with ``keep``, without a convolution."""
    _call(f"plain_gate_{NAMES[pre.dtype]}", (pre, bias, out), *out.shape)


def add_relu(x: Tensor, bias: Tensor) -> Tensor:
    """Turn x (..., width) into relu(x + bias), in place; by torch where there is no compiled function."""
    if not takes(x):
        return x.add_(bias).relu_()
    _call(f"add_relu_{NAMES[x.dtype]}", (x, bias), x.numel() // x.shape[-1], x.shape[-1])
    return x


def gate_gradients(grad: Tensor, gate: Tensor, sigmoids: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of the values that :func:`gate` takes sigmoids of; return its sum over the rows.

    Args:
        grad: Gradient of the gate, shape (rows, width), contiguous, as all here.
        gate: Its value, b - 2 a b, shape (rows, width).
        sigmoids: a and b, shape (rows, 2 * width).
        out: Written, shape (rows or more, 2 * width).

    Returns:
        The sum, float32, shape (2 * width,).
    """
    sums = torch.zeros(sigmoids.shape[1])
    _call(f"gate_gradients_{NAMES[grad.dtype]}", (grad, gate, sigmoids, out, sums), *grad.shape)
    return sums


def front(x: Tensor, stride: int, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Write relu(x @ weight + bias) of overlapping windows of x.

    Args:
        x: Values, float32, contiguous; row i of the product reads those from i * stride on.
        stride: Values from row to row.
        weight: float32, shape (size of a window, width), contiguous.
        bias: float32, shape (width,).
        out: Written, shape (rows, width), contiguous.
    """
    _call(f"front_{NAMES[out.dtype]}", (x, weight, bias, out), len(out), stride, *weight.shape)
    return out


def normalise(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write g v / |v| to ``out``; all float32 and contiguous, shapes (n, m), (n, 1) and (n, m)."""
    _call("normalise", (v, g, out), *v.shape)


def normalise_gradients(grad: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Turn ``grad``, that of :func:`normalise`'s result, into that of v, in place; return that of g, (n, 1)."""
    grad_g = torch.empty_like(g)
    _call("normalise_gradients", (grad, v, g, grad_g), *v.shape)
    return grad_g


def winograd_weights(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write the transformed taps of a weight-normalised convolution, see :class:`.convolution.WinogradConvolution`.

    Args:
        v: Directions, float32 and contiguous, as all here, shape (n, m, 3).
        g: Norms, shape (n, 1).
        out: Written, shape (6, n, m).
    """
    _call("winograd_weights", (v, g, out), *v.shape[:2])


def winograd_weight_gradients(grad: Tensor, v: Tensor, g: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of v, from ``grad``, that of what :func:`winograd_weights` wrote; return that of g, (n, 1)."""
    grad_g = torch.empty_like(g)
    _call("winograd_weight_gradients", (grad, v, g, out, grad_g), *v.shape[:2])
    return grad_g


def in_threads(work: Callable[[int], None], threads: int) -> None:
    """Call work(0), ..., work(threads - 1), a thread of OpenMP each; it must not raise."""
    functions().in_threads(_WORK(work), ctypes.c_long(threads))


def _tiles(planes: Tensor, dilation: int) -> tuple[int, int, int]:
    return planes.shape[1] // dilation, dilation, planes.shape[2]


def _call(name: str, tensors: tuple[Tensor, ...], *sizes: int) -> None:
    """Hand a compiled function the tensors' memory, the sizes, and the number of threads."""
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    getattr(functions(), name)(*pointers, *map(ctypes.c_long, (*sizes, torch.get_num_threads())))


@functools.cache
def functions() -> ctypes.CDLL | None:
    """Return the compiled functions; None: there is no compiler, or they aren't wanted."""
    if os.environ.get("FLOWAVENET_FUSED", "1") == "0":
        return None
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # no home: RuntimeError
        logging.debug(f"kernels/fused.c isn't used: {error}")
        return None


def _compiled() -> Path:
    """Return the shared library, compiled unless it was before."""
    compiler = os.environ.get("CC", "cc").split()
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    known = [SOURCE.read_bytes(), version, " ".join(FLAGS).encode(), _processor()]
    name = f"fused-{hashlib.sha256(b'|'.join(known)).hexdigest()[:16]}.so"
    folder = Path(os.environ.get("FLOWAVENET_CACHE") or Path.home() / ".cache/flowavenet_plugin")
    if (folder / name).exists():
        return folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:  # renamed when whole: other processes may do the same
        made = Path(work) / name
        subprocess.run([*compiler, *FLAGS, str(SOURCE), "-o", str(made), "-lm"], capture_output=True, check=True)
        made.replace(folder / name)
    return folder / name


def _processor() -> bytes:
    """Say what -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"model", b"Features"))}))
    except OSError:
        return platform.processor().encode()
