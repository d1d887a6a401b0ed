"""Addresses of tensors for C, made only where a tensor has the type, the shape and the layout that C relies on.

The functions of csrc/ see an address and sizes. What they take for granted is checked here, at each call, so that a
wrong layout is an error instead of wrong numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dense(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """Return the address of a tensor whose values lie one after the other.

    Args:
        name: What the tensor is, for the error.
        tensor: The tensor.
        dtype: The type that it must have.
        shape: Its shape.

    Raises:
        ValueError: If it has another type, shape or layout, or isn't in the memory of the processor.
    """
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous() or not tensor.is_cpu:
        raise ValueError(_refusal(name, tensor, f"{dtype} {shape}, dense"))
    return tensor.data_ptr()


def beginning(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """As :func:`dense`, of a tensor that may have more rows than ``shape`` says."""
    found = tensor.shape
    fits = found[0] >= shape[0] and found[1:] == shape[1:] and tensor.dtype == dtype
    if not (fits and tensor.is_contiguous() and tensor.is_cpu):
        raise ValueError(_refusal(name, tensor, f"{dtype} {shape} or more rows, dense"))
    return tensor.data_ptr()


def strided(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """As :func:`dense`, of a tensor in any layout: C is told its strides."""
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_cpu:
        raise ValueError(_refusal(name, tensor, f"{dtype} {shape}"))
    return tensor.data_ptr()


def rows(
    name: str, tensor: Tensor, dtype: torch.dtype, count: int, width: int, written: bool = False
) -> tuple[int, int]:
    """Return the address of a matrix and the values from row to row; what a row holds lies one after the other.

    Args:
        name: As in :func:`dense`.
        tensor: As in :func:`dense`.
        dtype: As in :func:`dense`.
        count: Rows.
        width: Values of a row.
        written: Rows are written to: they mustn't overlap.

    Raises:
        ValueError: As in :func:`dense`.
    """
    address = strided(name, tensor, dtype, count, width)
    step, inner = tensor.stride()
    step = step if count > 1 else width  # the stride of a single row, or of a single column, says nothing
    if (inner != 1 and width > 1) or (written and step < width):
        raise ValueError(_refusal(name, tensor, f"{dtype} {(count, width)}, each row dense{' and apart' * written}"))
    return address, step


def with_dense_rows(tensor: Tensor, pairs: bool = False) -> Tensor:
    """Return a matrix that :func:`rows` takes: itself, or a copy.

    Args:
        tensor: A matrix.
        pairs: Two values beside each other must lie in one word of memory, in all rows.
    """
    step, inner = tensor.stride()
    scattered = inner != 1 and tensor.shape[1] > 1
    if scattered or (pairs and (step % 2 and tensor.shape[0] > 1 or tensor.data_ptr() % (2 * tensor.element_size()))):
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor


def _refusal(name: str, tensor: Tensor, wanted: str) -> str:
    found = f"{tensor.dtype} {tuple(tensor.shape)}, strides {tensor.stride()}, on {tensor.device}"
    return f"compiled functions can't take {name}: {found}; it must be {wanted}, on cpu"
