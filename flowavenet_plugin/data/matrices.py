"""Matrices as Kaldi writes them, binary or text, and as numpy does: what a header promises, and the values.

kaldiio unpickles what says that it is a pickle, and guesses the type of a text matrix from its first number, so that
``[ 1 0.5 ]`` fails: it is given binary matrices only.
"""

from __future__ import annotations

import math
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from kaldiio.matio import read_kaldi

from flowavenet_plugin.data.archive import Window

BINARY = b"\0B"
_BYTES_PER_VALUE = {b"FM": 4, b"DM": 8}
_BYTES_PER_COMPRESSED = {b"CM": 1, b"CM2": 2, b"CM3": 1}
#: Of Kaldi's text matrices, with "inf" and "nan": these are told when the values are checked.
_IN_TEXT = b"0123456789+-.eEinfatyINFATY \t\r\n"
_BLOCK = 2**16


class Header(NamedTuple):
    """What stands before the values of a matrix.

    Attributes:
        shape: Frames and dimension; of an array of another kind its own.
        end: Byte of the window at which the matrix ends.
    """

    shape: tuple[int, ...]
    end: int


def read_header(window: Window, npy: bool) -> Header:
    """Read what a matrix promises; of a text matrix, which promises nothing, all of it.

    Args:
        window: It begins where the matrix does.
        npy: Whether it is numpy's.

    Raises:
        ValueError: If there is no matrix.
        struct.error: If the header is cut off. Damaged ones may make numpy raise others.
    """
    file = window.buffered()
    if npy:
        return _npy_header(file)
    head = file.read(32)
    if head[:2] == BINARY:
        return _binary_header(head)
    if head.lstrip(b" \t\r\n")[:1] == b"[":
        values, end = _read_text(window)
        return Header(values.shape, end)
    raise ValueError(f"found {head[:5]!r}, not the start of a Kaldi matrix")


def read_values(window: Window, npy: bool) -> Any:
    """Read the values of a matrix that has been seen to be one, shape (frames, dim)."""
    file = window.buffered()
    if npy:
        return np.load(file, allow_pickle=False)
    if file.read(2) != BINARY:
        return _read_text(window)[0]
    file.seek(0)
    return read_kaldi(file)


def _binary_header(head: bytes) -> Header:
    token = head[2:].split(b" ", 1)[0]
    body = 2 + len(token) + 1
    if token in _BYTES_PER_VALUE:
        first, rows, second, cols = struct.unpack("<bibi", head[body : body + 10])
        if (first, second) != (4, 4):
            raise ValueError(f"its sizes are of {first} and {second} bytes, not of 4")
        size = 10 + rows * cols * _BYTES_PER_VALUE[token]
    elif token in _BYTES_PER_COMPRESSED:
        _, _, rows, cols = struct.unpack("<ffii", head[body : body + 16])
        column_headers = 8 * cols if token == b"CM" else 0
        size = 16 + column_headers + rows * cols * _BYTES_PER_COMPRESSED[token]
    else:
        raise ValueError(f"found {head[:5]!r}, not the start of a Kaldi matrix")
    if rows < 1 or cols < 1:
        raise ValueError(f"the matrix has {rows} frames of {cols} dimensions")
    return Header((rows, cols), body + size)


def _npy_header(file: BinaryIO) -> Header:
    header = read_npy_header(file, "f")
    if len(header.shape) != 2 or min(header.shape) < 1:
        raise ValueError(f"shape {header.shape}; (frames, dim) is wanted")
    return header


def read_npy_header(file: BinaryIO, kinds: str = "fiu") -> Header:
    """Read what an array of numpy's promises, and nothing more.

    Args:
        file: It begins where the array does.
        kinds: Of numbers, as numpy calls them.

    Raises:
        ValueError: If there is none of these kinds. Damaged ones may make numpy raise others.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in kinds or min(shape, default=0) < 0:
        raise ValueError(f"shape {shape} of type {dtype}; {'floats' if kinds == 'f' else 'numbers'} are wanted")
    return Header(shape, file.tell() + math.prod(shape) * dtype.itemsize)


def _read_text(window: Window) -> tuple[np.ndarray, int]:
    """Return a text matrix, ``[`` row after row ``]``, shape (frames, dim), and the byte after its bracket."""
    text, end = _between_brackets(window)
    lines = [line.split() for line in text.split(b"\n")]
    rows = [line for line in lines if line]
    if not rows:
        raise ValueError("the text matrix holds no values")
    if len(lines) == 1:
        raise ValueError(f"[ ... ] in one line is a vector, here of {len(rows[0])} values; (frames, dim) is wanted")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"the text matrix has {len(rows[0])} values in frame 0, but {len(row)} in frame {number}")
    return np.array([[float(value) for value in row] for row in rows]), end


def _between_brackets(window: Window) -> tuple[bytes, int]:
    file, blocks, opened = window.buffered(), [], 0
    while block := file.read(_BLOCK):
        if not opened:
            opened = block.index(b"[") + 1
            block = block[opened:]
        inside, bracket, after = block.partition(b"]")
        if strange := inside.translate(None, _IN_TEXT):
            raise ValueError(f"found {strange[:5]!r} among the values of a text matrix")
        blocks.append(inside)
        if bracket:
            return b"".join(blocks), file.tell() - len(after)
    raise ValueError("the text matrix isn't closed by ']': it is truncated")
