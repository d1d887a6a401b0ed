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
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("fused.c")
#: Without -ffast-math, which would change the arithmetic of the whole process.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast")
FLAGS += ("-fopenmp", "-fPIC", "-shared")
NAMES = {torch.float32: "float", torch.bfloat16: "bf16"}


def takes(x: Tensor) -> bool:
    """Whether the functions here work on a tensor: on a CPU, of float32 or bfloat16, contiguous."""
    return x.device.type == "cpu" and x.dtype in NAMES and x.is_contiguous() and functions() is not None


def inputs(h: Tensor, first: int, dilation: int, out: Tensor) -> Tensor:
    """Transform the inputs of tiles of four outputs, B' d, see :class:`.convolution.WinogradConvolution`.

    Args:
        h: Shape (rows, width), contiguous.
        first: Row that the first tile begins with.
        dilation: Rows from tap to tap.
        out: Written, shape (6, tiles * dilation, width).
    """
    start = h.data_ptr() + first * h.shape[1] * h.element_size()
    sizes = (out.shape[1] // dilation, dilation, h.shape[1], torch.get_num_threads())
    getattr(functions(), f"inputs_{NAMES[h.dtype]}")(
        ctypes.c_void_p(start), ctypes.c_void_p(out.data_ptr()), *_longs(sizes)
    )
    return out


def add_outputs(y: Tensor, dilation: int, out: Tensor) -> None:
    """Add A' y, (6, tiles * dilation, width), to the rows of ``out``, (4 * tiles * dilation, width)."""
    _transform("outputs", y, dilation, out.data_ptr())


def gradients(grad: Tensor, dilation: int, out: Tensor) -> Tensor:
    """Write A dy of the rows ``grad`` to ``out``; shapes as in :func:`add_outputs`."""
    sizes = (out.shape[1] // dilation, dilation, out.shape[2], torch.get_num_threads())
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (grad, out))
    getattr(functions(), f"gradients_{NAMES[out.dtype]}")(*pointers, *_longs(sizes))
    return out


def add_input_gradients(x: Tensor, first: int, dilation: int, grad: Tensor) -> None:
    """Add B x, (6, tiles * dilation, width), to the rows of ``grad`` that the tiles read, from ``first`` on."""
    _transform("input_gradients", x, dilation, grad.data_ptr() + first * grad.shape[1] * grad.element_size())


def _transform(name: str, planes: Tensor, dilation: int, rows: int) -> None:
    sizes = (planes.shape[1] // dilation, dilation, planes.shape[2], torch.get_num_threads())
    function = getattr(functions(), f"{name}_{NAMES[planes.dtype]}")
    function(ctypes.c_void_p(planes.data_ptr()), ctypes.c_void_p(rows), *_longs(sizes))


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
    sizes = (len(out), y.shape[1] // dilation, dilation, out.shape[1], int(keep), torch.get_num_threads())
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (y, pre, bias, out))
    getattr(functions(), f"gate_{NAMES[y.dtype]}")(*pointers, *_longs(sizes))
    return out


def plain_gate(pre: Tensor, bias: Tensor, out: Tensor) -> None:
    """As :func:`gate` with ``keep``, without a convolution."""
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (pre, bias, out))
    getattr(functions(), f"plain_gate_{NAMES[pre.dtype]}")(*pointers, *_longs((*out.shape, torch.get_num_threads())))


def add_relu(x: Tensor, bias: Tensor) -> Tensor:
    """Turn x (..., width) into relu(x + bias), in place; by torch where there is no compiled function."""
    if not takes(x):
        return x.add_(bias).relu_()
    sizes = (x.numel() // x.shape[-1], x.shape[-1], torch.get_num_threads())
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, bias))
    getattr(functions(), f"add_relu_{NAMES[x.dtype]}")(*pointers, *_longs(sizes))
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
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (grad, gate, sigmoids, out, sums))
    sizes = (*grad.shape, torch.get_num_threads())
    getattr(functions(), f"gate_gradients_{NAMES[grad.dtype]}")(*pointers, *_longs(sizes))
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
    sizes = (len(out), stride, *weight.shape, torch.get_num_threads())
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, weight, bias, out))
    getattr(functions(), f"front_{NAMES[out.dtype]}")(*pointers, *_longs(sizes))
    return out


def normalise(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write g v / |v| to ``out``; all float32 and contiguous, shapes (n, m), (n, 1) and (n, m)."""
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (v, g, out))
    functions().normalise(*pointers, *_longs((*v.shape, torch.get_num_threads())))


def normalise_gradients(grad: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Turn ``grad``, that of :func:`normalise`'s result, into that of v, in place; return that of g, (n, 1)."""
    grad_g = torch.empty_like(g)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (grad, v, g, grad_g))
    functions().normalise_gradients(*pointers, *_longs((*v.shape, torch.get_num_threads())))
    return grad_g


def winograd_weights(v: Tensor, g: Tensor, out: Tensor) -> None:
    """Write the transformed taps of a weight-normalised convolution, see :class:`.convolution.WinogradConvolution`.

    Args:
        v: Directions, float32 and contiguous, as all here, shape (n, m, 3).
        g: Norms, shape (n, 1).
        out: Written, shape (6, n, m).
    """
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (v, g, out))
    functions().winograd_weights(*pointers, *_longs((*v.shape[:2], torch.get_num_threads())))


def winograd_weight_gradients(grad: Tensor, v: Tensor, g: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of v, from ``grad``, that of what :func:`winograd_weights` wrote; return that of g, (n, 1)."""
    grad_g = torch.empty_like(g)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (grad, v, g, out, grad_g))
    functions().winograd_weight_gradients(*pointers, *_longs((*v.shape[:2], torch.get_num_threads())))
    return grad_g


def _longs(values: tuple[int, ...]) -> tuple[ctypes.c_long, ...]:
    return tuple(map(ctypes.c_long, values))


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
