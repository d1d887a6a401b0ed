"""The matrix that mixes channels, L U with ones on both diagonals, its inverse, and the gradient of its factors.

Matrices are float64, see :mod:`.arithmetic`: a product that were rounded to few bits would have another determinant.
"""

from __future__ import annotations

import torch
from torch import Tensor


def triangles(factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return L and U, (C, C) each, of what lies below and above the diagonal of ``factors``."""
    one = torch.eye(factors.shape[0], dtype=factors.dtype, device=factors.device)
    return factors.tril(-1) + one, factors.triu(1) + one


def mixing_matrix(factors: Tensor) -> Tensor:
    """Return L U, float64, shape (C, C)."""
    lower, upper = triangles(factors.double())
    return lower @ upper


def inverse_mixing_matrix(factors: Tensor) -> Tensor:
    """Return its inverse, float64, shape (C, C)."""
    factors = factors.double()
    return _unit_inverse(-factors.triu(1)) @ _unit_inverse(-factors.tril(-1))


def mixing_backward(grad: Tensor, factors: Tensor) -> Tensor:
    """Return the gradient of ``factors`` from that of the matrix, (C, C) both; its diagonal is zero."""
    lower, upper = triangles(factors.double())
    grad = grad.double()
    return ((grad @ upper.t()).tril(-1) + (lower.t() @ grad).triu(1)).to(factors)


def _unit_inverse(n: Tensor) -> Tensor:
    """Return (1 - n)^-1 of a strictly triangular n: the series ends, and is a product of 1 + n^(2^k).

    Products only, so that any format of exported models holds it.
    """
    one = torch.eye(n.shape[0], dtype=n.dtype, device=n.device)
    out, power, reach = one + n, n, 2
    while reach < n.shape[0]:
        power = power @ power
        out, reach = out + out @ power, 2 * reach
    return out
