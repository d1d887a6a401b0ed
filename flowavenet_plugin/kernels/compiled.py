"""The functions of csrc/, compiled at first use if a C compiler is at hand.

Without a compiler, or where :mod:`.choices` doesn't want them, torch operators compute the same where these functions
are used. :mod:`.compiler` makes the library.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import subprocess
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from flowavenet_plugin.kernels import choices, compiler

#: What the functions for rows of a type end with.
KINDS = {torch.float32: "float", torch.bfloat16: "bf16"}
#: What functions take before the number of threads: addresses (a), integers (i) and floats (f).
FUNCTIONS = {
    "normalise": "aaaii",
    "normalise_gradients": "aaaaii",
    "winograd_inputs": "aaiii",
    "winograd_gradients": "aaiii",
    "winograd_input_gradients": "aaaaiiii",
    "winograd_weights": "aaaii",
    "winograd_weight_gradients": "aaaaaii",
}
#: The same for those that there are of each type.
FUNCTIONS_OF_KINDS = {
    "gate": "aaaii",
    "gate_gradients": "aaaaaii",
    "front": "aaaaiiii",
    "end": "aaaaiii",
    "panel_product": "aaaaaiiiiiiiff",
    "panels": "aaiiiiii",
    "winograd_convolve": "aaaaaaiiiiii",
    "gate_panels": "aaii",
}
#: Functions that return a constant of the library.
CONSTANTS = ("panel_columns", "winograd_group")
_TYPES = {"a": ctypes.c_void_p, "i": ctypes.c_long, "f": ctypes.c_float}
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_long)


#: Of each thread: ``count``, how many threads a function that it calls uses; 0 or none: as many as torch does.
_here = threading.local()


def takes(x: Tensor) -> bool:
    """Whether the functions work on a tensor: on a CPU, of float32 or bfloat16, contiguous."""
    return x.device.type == "cpu" and x.dtype in KINDS and x.is_contiguous() and functions() is not None


def takes_floats(*tensors: Tensor) -> bool:
    """Whether the functions of float32 work on all of these."""
    return all(tensor.dtype == torch.float32 and takes(tensor) for tensor in tensors)


def call(name: str, *arguments: float | None) -> None:
    """Call a function with addresses (from :mod:`.arguments`; None: null) and numbers, and the number of threads."""
    getattr(functions(), name)(*arguments, thread_count())


@functools.cache
def constant(name: str) -> int:
    """Return a constant of the library."""
    return getattr(functions(), name)()


def thread_count() -> int:
    """Return the number of threads that a function uses if it is called here: one inside of :func:`in_threads`."""
    return getattr(_here, "count", 0) or torch.get_num_threads()


def in_threads(work: Callable[[int], None], threads: int) -> None:
    """Call work(0), ..., work(threads - 1), a thread of OpenMP each; it must not raise.

    What ``work`` calls uses no further threads. Compiled functions and the libraries behind PyTorch are told so, since
    they cut what they do into as many parts as they are told threads, however many there are.
    """

    def alone(thread: int) -> None:
        torch.get_num_threads()  # PyTorch sets up a thread at the first question, and would undo the next line
        functions().use_one_thread()
        _here.count = 1
        try:
            work(thread)
        finally:
            _here.count = 0

    functions().in_threads(_WORK(alone), threads)


def _once(make: Callable[[], ctypes.CDLL | None]) -> Callable[[], ctypes.CDLL | None]:
    """Call a function once and keep its result; threads that ask meanwhile wait (functools.cache lets them all in)."""
    lock, results = threading.Lock(), []

    @functools.wraps(make)
    def result() -> ctypes.CDLL | None:
        if not results:
            with lock:
                if not results:
                    results.append(make())
        return results[0]

    result.cache_clear = results.clear
    return result


@_once
def functions() -> ctypes.CDLL | None:
    """Return the compiled functions; None: they can't be had, which is said in one warning, or aren't wanted."""
    if not choices.wants_compiled():
        return None
    constant.cache_clear()
    try:
        return _declared(compiler.load())
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        logging.warning(
            f"Compiled kernels can't be used: {compiler.reason(error)}. PyTorch computes the same, but synthesis on a "
            f"CPU takes about {compiler.COST} as long. A C compiler ($CC, else cc) is what they need; "
            f"{choices.FUSED}=0 does without them and without this warning."
        )
        return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes what each function takes."""
    of_kinds = {f"{name}_{kind}": given for name, given in FUNCTIONS_OF_KINDS.items() for kind in KINDS.values()}
    for name, given in {**FUNCTIONS, **of_kinds}.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [*(_TYPES[letter] for letter in given), ctypes.c_long], None
    for name in CONSTANTS:
        getattr(library, name).argtypes, getattr(library, name).restype = [], ctypes.c_long
    library.in_threads.argtypes, library.in_threads.restype = [_WORK, ctypes.c_long], None
    library.use_one_thread.argtypes, library.use_one_thread.restype = [], None
    return library
