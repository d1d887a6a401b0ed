"""Our arithmetic: numbers that don't depend on what the caller has set in PyTorch.

Samples, filters and log-determinants have the precision of the weights, also under autocast; autocast's type is for
the WaveNets alone. Whatever computes with samples enters :func:`arithmetic` first. What can't be switched off there,
since PyTorch keeps it for all threads together, has no effect either: products of samples, and those that make filters,
are computed in float64 (:func:`exact_product`), which neither ``torch.set_float32_matmul_precision`` nor TF32 rounds;
and tensors are made with their type, whatever ``torch.set_default_dtype`` says.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P, R = ParamSpec("P"), TypeVar("R")
_LOWER: ContextVar[torch.dtype | None] = ContextVar("_LOWER", default=None)


@contextlib.contextmanager
def arithmetic(device: torch.device) -> Iterator[None]:
    """Compute with samples on a device: autocast and inference mode off, and the device is the current one.

    Gradients are recorded if they were before; in inference mode they aren't. What is made here can be used anywhere,
    in training too. :func:`wavenet_dtype` still tells the type that autocast asked for. What traces a model for export
    knows no such settings: for it nothing changes.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        yield
        return
    gradients = torch.is_grad_enabled()
    on_gpu = device.type == "cuda" and torch.cuda.is_initialized()
    current = torch.cuda.device(device) if on_gpu else contextlib.nullcontext()
    token = _LOWER.set(_autocast_dtype(device.type) or _LOWER.get())
    try:
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(gradients),  # leaving inference mode has switched them on
            _without_autocast(device.type),
            current,
        ):
            yield
    finally:
        _LOWER.reset(token)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Inside of :func:`arithmetic`: WaveNets run in the precision of the weights, too, whatever autocast asked for."""
    token = _LOWER.set(None)
    try:
        yield
    finally:
        _LOWER.reset(token)


def own_arithmetic(method: Callable[P, R]) -> Callable[P, R]:
    """Run a method in :func:`arithmetic` on its object's ``device``; ``torch.compile`` calls it as it is."""

    @torch.compiler.disable
    def run(self: object, *args: P.args, **kwargs: P.kwargs) -> R:
        with arithmetic(self.device):
            return method(self, *args, **kwargs)

    @functools.wraps(method)
    def call(self: object, *args: P.args, **kwargs: P.kwargs) -> R:
        return run(self, *args, **kwargs)  # torch 2.6 would take `run` itself out of a method bound to an object

    return call


def wavenet_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which a WaveNet runs that gets x: the caller's autocast's if x is float32, else that of x."""
    lower = _autocast_dtype(x.device.type) or _LOWER.get()
    return lower if lower is not None and x.dtype == torch.float32 else x.dtype


def _autocast_dtype(kind: str) -> torch.dtype | None:
    known = torch.amp.is_autocast_available(kind)  # "meta" for instance has none
    return torch.get_autocast_dtype(kind) if known and torch.is_autocast_enabled(kind) else None


def _without_autocast(kind: str) -> contextlib.AbstractContextManager[object]:
    known = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if known else contextlib.nullcontext()


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b of the type of ``a``, computed in float64."""
    return (a.double() @ b.double()).to(a.dtype)


def exact_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Run a layer in float64; x and the result are of that type."""
    return F.linear(x, layer.weight.double(), layer.bias.double())


def usable(x: Tensor) -> Tensor:
    """Return x itself, or a copy if it was made in inference mode and so would be refused outside of it."""
    return x.clone() if x.is_inference() else x
