"""Addresses of tensors for C, made only where a tensor has the type, the shape and the layout that C relies on.

The functions of csrc/ see an address and sizes. What they take for granted is checked here, at each call, so that a
wrong layout is an error instead of wrong numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dense(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """Return the address of a tensor of this type and shape whose values lie one after the other.

    Raises:
        ValueError: If it has another type, shape or layout, or isn't in the memory of the processor; ``name`` says
            which tensor it is.
    """
    return _address(name, tensor, dtype, shape, tensor.shape == shape and tensor.is_contiguous(), ", dense")


def beginning(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """As :func:`dense`, of a tensor that may have more rows than ``shape`` says."""
    fits = tensor.shape[0] >= shape[0] and tensor.shape[1:] == shape[1:] and tensor.is_contiguous()
    return _address(name, tensor, dtype, shape, fits, " or more rows, dense")


def strided(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """As :func:`dense`, of a tensor in any layout: C is told its strides."""
    return _address(name, tensor, dtype, shape, tensor.shape == shape)


def rows(
    name: str, tensor: Tensor, dtype: torch.dtype, count: int, width: int, written: bool = False
) -> tuple[int, int]:
    """Return the address of a matrix (count, width) and the values from row to row.

    What a row holds lies one after the other. Rows that are ``written`` to mustn't overlap. Else as :func:`dense`.
    """
    address = strided(name, tensor, dtype, count, width)
    step, inner = tensor.stride()
    step = step if count > 1 else width  # the stride of a single row, or of a single column, says nothing
    if (inner != 1 and width > 1) or (written and step < width):
        raise ValueError(_refusal(name, tensor, f"{dtype} {(count, width)}, each row dense{' and apart' * written}"))
    return address, step


def with_dense_rows(tensor: Tensor, pairs: bool = False) -> Tensor:
    """Return a matrix that :func:`rows` takes: itself, or a copy.

    ``pairs``: two values beside each other must lie in one word of memory, in all rows.
    """
    step, inner = tensor.stride()
    scattered = inner != 1 and tensor.shape[1] > 1
    if scattered or (pairs and (step % 2 and tensor.shape[0] > 1 or tensor.data_ptr() % (2 * tensor.element_size()))):
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor


def _address(
    name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], fits: bool, layout: str = ""
) -> int:
    if not (fits and tensor.dtype == dtype and tensor.is_cpu):
        raise ValueError(_refusal(name, tensor, f"{dtype} {shape}{layout}"))
    return tensor.data_ptr()


def _refusal(name: str, tensor: Tensor, wanted: str) -> str:
    found = f"{tensor.dtype} {tuple(tensor.shape)}, strides {tensor.stride()}, on {tensor.device}"
    return f"compiled functions can't take {name}: {found}; it must be {wanted}, on cpu"
