"""Who computes a stack's layers: all backends, and when each is chosen.

========  ======================================================  ==================================================
compiled  functions of csrc/ (:mod:`.compiled`, :mod:`.products`,  float32 and bfloat16 on a CPU, where there is a C
          :mod:`.winograd`, :mod:`.fused`)                         compiler; :mod:`.choices` reads what users set
torch     operators of PyTorch                                     all that no other backend takes
triton    torch, but for gates and the products behind them        a CUDA device where Triton is installed, but for
          (:mod:`.triton_gated_product`)                           float64, where no activations are kept
========  ======================================================  ==================================================

Whether an operation is compiled is decided by its tensors (:func:`~.compiled.takes`, :class:`~.products.Matrix`), so
that compiled and torch are one class here, :class:`Separate`; :class:`Fused` is for kernels of gate and product. What a
new backend must offer is what these two do. :func:`fewer_products_pay` says how convolutions are computed.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowavenet_plugin.kernels import choices
from flowavenet_plugin.kernels.products import panels_shape
from flowavenet_plugin.kernels.scratch import Scratch

#: Factor of a layer's residual sum.
RESIDUAL = math.sqrt(0.5)


class Separate:
    """Gates are written, then multiplied: compiled functions where they are at hand, else torch."""

    #: Whether :meth:`residual` sets rows outside of utterances to zero.
    clears = False

    def gate(
        self, weights: Any, i: int, pre: Tensor, out: Tensor, h: Tensor, first: int, scratch: Scratch, keep: bool
    ) -> Tensor:
        """Turn ``pre``, which holds a layer's conditioning, into what :meth:`skip` and :meth:`residual` multiply.

        ``pre`` are whole tiles of rows (n, 2 * width), of the layer's output from ``first`` on; with ``keep`` it holds
        the sigmoids afterwards. ``h`` is the layer's input with the rows around it, ``out`` room for gates (rows,
        width).
        """
        weights.dilated[i].add_gate(pre, h, first, weights.bias[i], out, scratch, keep)
        return out

    def skip(self, weights: Any, i: int, gate: Tensor, out: Tensor) -> None:
        """Add a layer's skips to ``out``, or write the first layer's; with the last one it is the relu of the sum."""
        is_last = i + 1 == len(weights.dilated)
        bias, other = weights.skip_sum_bias if is_last else None, out if i else None
        weights.times("to_skip", i).multiply(gate, out, bias, other, alpha=-1, relu=is_last)

    def residual(self, weights: Any, i: int, gate: Tensor, h: Tensor, out: Tensor, inside: Tensor | None) -> None:
        """Write the next layer's input; ``h`` is this one's, ``inside`` as in :meth:`Fused.residual`."""
        product = weights.times("to_residual", i)
        product.multiply(gate, out, weights.residual_bias[i], h, alpha=-RESIDUAL, factor=RESIDUAL)


class Fused:
    """One kernel for each gate and the product behind it: gates never go to memory. For inputs that aren't kept."""

    clears = True

    def __init__(self, product: Callable[..., Tensor]) -> None:
        """Use a function like :func:`~.triton_gated_product.gated_product`."""
        self._product = product

    def gate(
        self, weights: Any, i: int, pre: Tensor, out: Tensor, h: Tensor, first: int, scratch: Scratch, keep: bool
    ) -> Tensor:
        """See :meth:`Separate.gate`."""
        if keep:
            raise ValueError("this backend keeps no activations")
        weights.dilated[i].add_to(pre, h, first, scratch)
        return pre[: len(out)].add_(weights.bias[i])

    def skip(self, weights: Any, i: int, gate: Tensor, out: Tensor) -> None:
        """See :meth:`Separate.skip`."""
        is_last = i + 1 == len(weights.dilated)
        bias, base = weights.skip_sum_bias if is_last else None, out if i else None
        self._product(gate, weights.times("to_skip", i).weight, bias, base, -1.0, 1.0, None, out)
        if is_last:
            out.relu_()

    def residual(self, weights: Any, i: int, gate: Tensor, h: Tensor, out: Tensor, inside: Tensor | None) -> None:
        """See :meth:`Separate.residual`; rows for which ``inside`` (rows, 1) is 0 become zero."""
        weight, bias = weights.times("to_residual", i).weight, weights.residual_bias[i]
        self._product(gate, weight, bias, h, -RESIDUAL, RESIDUAL, inside, out)


def choose_backend(device: torch.device, dtype: torch.dtype) -> Separate | Fused:
    """Return the backend of a stack whose activations aren't kept."""
    if device.type != "cuda" or dtype == torch.float64 or importlib.util.find_spec("triton") is None:
        return Separate()
    from flowavenet_plugin.kernels import triton_gated_product  # imported where it is chosen only

    return Fused(triton_gated_product.gated_product)


def fewer_products_pay(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Say whether a convolution's products cost more than the sums that fewer of them need, for many rows.

    Not where there are units for matrices. In half precision not without the compiled functions either: torch rounds
    between the sums, which large factors (up to 32) then make larger; plain products are faster there and more exact.
    """
    if device.type != "cpu":
        return False
    if dtype in (torch.float32, torch.float64):
        return True
    return choices.wants_compiled_products(dtype) and panels_shape(width, 2 * width, dtype) is not None
