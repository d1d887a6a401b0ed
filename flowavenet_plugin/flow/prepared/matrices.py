"""Products of rows with matrices, into given buffers."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.kernels.products import panel_product, panels


class Matrix:
    """A matrix that is kept in the form in which its products read it."""

    def __init__(self, weight: Tensor) -> None:
        """Keep a weight, shape (in, out)."""
        self.shape = weight.shape
        self._panels = panels(weight)
        self._weight = weight if self._panels is None else None

    def __call__(
        self,
        x: Tensor,
        out: Tensor,
        bias: Tensor | None = None,
        other: Tensor | None = None,
        factor: float = 1.0,
        relu: bool = False,
    ) -> Tensor:
        """Write x @ weight + bias + factor * other, or its relu.

        Args:
            x: Shape (B, rows, in).
            out: Written, shape (B, rows, out).
            bias: Shape (out,); None: none.
            other: Shape (B, rows, out), may be ``out``; None: nothing.
            factor: See above.
            relu: See above.

        Returns:
            ``out``.
        """
        if self._panels is not None:
            for i, (rows, made) in enumerate(zip(x, out, strict=True)):
                panel_product(rows, self._panels, made, bias, None if other is None else other[i], factor, relu)
            return out
        if other is None:
            product(x, self._weight, out, bias)
        else:
            base = other if bias is None and factor == 1 else other * factor + (0 if bias is None else bias)
            add_product(base if other is out and base is out else out.copy_(base), x, self._weight)
        return out.relu_() if relu else out


def product(x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None) -> Tensor:
    """Write x @ weight + bias to ``out``: (B, rows, in), (in, out), (B, rows, out), (out,)."""
    if bias is None:
        torch.mm(x[0], weight, out=out[0]) if x.shape[0] == 1 else torch.bmm(x, _each(weight, x), out=out)
        return out
    if x.shape[0] == 1:
        torch.addmm(bias, x[0], weight, out=out[0])
        return out
    return torch.baddbmm(bias.expand_as(out), x, _each(weight, x), out=out)


def add_product(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add x @ weight to ``out``: (B, rows, in), (in, out), (B, rows, out)."""
    if x.shape[0] == 1:
        out[0].addmm_(x[0], weight)
        return out
    return out.baddbmm_(x, _each(weight, x))


def _each(weight: Tensor, x: Tensor) -> Tensor:
    return weight.expand(x.shape[0], *weight.shape)
