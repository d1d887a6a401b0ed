"""Features that a list names, in ark or npy files.

Nothing here ever unpickles: kaldiio's arks may hold pickles, so entries and headers are checked before kaldiio sees
them.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from kaldiio.matio import read_kaldi

from flowavenet_plugin.data.lists import check_same_ids, find_listed, read_scp

_ARK_ENTRY = re.compile(r"(.+):(\d+)")
_BYTES_PER_VALUE = {b"FM": 4, b"DM": 8}
_BYTES_PER_COMPRESSED = {b"CM": 1, b"CM2": 2, b"CM3": 1}


def check_fit(utt: str, samples: int, frames: int, hop: int) -> None:
    """Check that audio and frames belong together: (frames - 1) * hop <= samples <= frames * hop.

    Raises:
        ValueError: If they don't; with the id, both numbers and the range that fits.
    """
    if not max(frames - 1, 0) * hop <= samples <= frames * hop or frames < 1:
        low, high = max(frames - 1, 0) * hop, frames * hop
        raise ValueError(
            f"{utt}: {samples} samples don't fit {frames} frames of hop {hop}, which need {low} to {high} samples"
        )


def check_feats(shapes: Mapping[str, tuple[int, int]], samples: Mapping[str, int], n_mels: int, hop: int) -> None:
    """Check every utterance's features against its audio.

    Args:
        shapes: Id -> (frames, dimension), see :func:`check_arks`.
        samples: Id -> samples, same ids.
        n_mels: The dimension that is wanted.
        hop: Samples per frame.

    Raises:
        ValueError: If ids, a dimension or a frame count don't fit; with the id and both numbers.
    """
    check_same_ids(shapes, samples, "the list of features", "the list of audio lengths")
    for utt, (frames, dim) in shapes.items():
        if dim != n_mels:
            raise ValueError(f"{utt}: features have {dim} dimensions, {n_mels} are wanted")
        check_fit(utt, samples[utt], frames, hop)


class FeatsGoneError(ValueError):
    """A list names a file that isn't there."""


class FeatsReader(Mapping):
    """Features of a list, read when asked for; see :func:`open_feats`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.entries = read_scp(path)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, utt: object) -> bool:
        return utt in self.entries

    def __getitem__(self, utt: str) -> np.ndarray:
        """Features of an utterance, float32, shape (frames, dim).

        Raises:
            ValueError: If its file is missing or damaged, or values aren't finite; with the utterance and the file.
        """
        path, offset = self._locate(utt)
        with open(path, "rb") as file:
            shape = self._read_shape(file, utt, offset)
            file.seek(offset or 0)
            try:
                feats = np.load(file, allow_pickle=False) if offset is None else read_kaldi(file)
            except Exception as error:  # what is damaged makes the readers fail in many ways
                raise ValueError(f"{utt}: can't read the features in {path}: {error!r}") from error
        # A copy, as what kaldiio returns can't be written to; values beyond single precision become infinite.
        with np.errstate(over="ignore"):
            feats = np.array(feats, dtype=np.float32)
        if feats.shape != shape:
            raise ValueError(f"{utt}: {path} holds features of shape {feats.shape}, its header says {shape}")
        if bad := int((~np.isfinite(feats)).sum()):
            raise ValueError(f"{utt}: {bad} of {feats.size} features in {path} are not finite")
        return feats

    def shape(self, utt: str) -> tuple[int, int]:
        """(frames, dim) from the file's header; the data is not read, but has to be there in full."""
        path, offset = self._locate(utt)
        with open(path, "rb") as file:
            return self._read_shape(file, utt, offset)

    def _locate(self, utt: str) -> tuple[Path, int | None]:
        """File and byte offset of an entry; the offset is None for npy."""
        entry = self.entries[utt]
        match = _ARK_ENTRY.fullmatch(entry)
        if not match and not entry.endswith(".npy"):
            raise ValueError(f"{utt}: '{entry}' in {self.path} is neither FILE.ark:OFFSET nor FILE.npy")
        name, offset = (match[1], int(match[2])) if match else (entry, None)
        if (found := find_listed(name, self.path, utt)) is not None:
            return found, offset
        raise FeatsGoneError(f"{utt}: no such feature file: {name} (listed in {self.path})")

    def _read_shape(self, file: BinaryIO, utt: str, offset: int | None) -> tuple[int, int]:
        there = os.fstat(file.fileno()).st_size
        try:
            shape, needed = _npy_header(file) if offset is None else _ark_header(file, offset)
        except Exception as error:  # NumPy's reader of headers lets errors of the tokenizer pass, and others
            at = "" if offset is None else f" at byte {offset}"
            why = "its header is cut off" if isinstance(error, struct.error) else error
            why = why if isinstance(error, (ValueError, struct.error)) else repr(error)
            raise ValueError(f"{utt}: no features{at} of {file.name}, which has {there} bytes: {why}") from None
        if there < needed:
            raise ValueError(f"{utt}: {file.name} is truncated: {needed} bytes expected, {there} found")
        return shape


def _ark_header(file: BinaryIO, offset: int) -> tuple[tuple[int, int], int]:
    """((frames, dim), file size that the matrix needs, in bytes); ValueError if there is no matrix at the offset."""
    file.seek(offset)
    head = file.read(32)
    token = head[2:].split(b" ", 1)[0]
    body = 2 + len(token) + 1
    if head[:2] == b"\0B" and token in _BYTES_PER_VALUE:
        first, rows, second, cols = struct.unpack("<bibi", head[body : body + 10])
        if (first, second) != (4, 4):
            raise ValueError(f"its sizes are of {first} and {second} bytes, not of 4")
        size = 10 + rows * cols * _BYTES_PER_VALUE[token]
    elif head[:2] == b"\0B" and token in _BYTES_PER_COMPRESSED:
        _, _, rows, cols = struct.unpack("<ffii", head[body : body + 16])
        column_headers = 8 * cols if token == b"CM" else 0
        size = 16 + column_headers + rows * cols * _BYTES_PER_COMPRESSED[token]
    else:
        raise ValueError(f"found {head[:5]!r}, not the start of a Kaldi matrix")
    if rows < 1 or cols < 1:
        raise ValueError(f"the matrix has {rows} frames of {cols} dimensions")
    return (rows, cols), offset + body + size


def _npy_header(file: BinaryIO) -> tuple[tuple[int, int], int]:
    """Like :func:`_ark_header`, for npy."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if len(shape) != 2 or min(shape) < 1 or dtype.kind != "f":
        raise ValueError(f"shape {shape} of type {dtype}; (frames, dim) floats are wanted")
    return shape, file.tell() + shape[0] * shape[1] * dtype.itemsize


def open_feats(path: str | Path) -> FeatsReader:
    """Open a feats.scp whose entries are ``FILE.ark:OFFSET`` or ``FILE.npy``.

    Args:
        path: The list. Relative entries are found as :func:`find_listed` does.

    Returns:
        Id -> (frames, dim) float32, each read when asked for; ValueError then, if its file is missing or damaged.
    """
    return FeatsReader(path)


def check_arks(path: str | Path) -> dict[str, tuple[int, int]]:
    """Check the header of every entry of a feats.scp, without reading the data.

    Returns:
        Id -> (frames, dim).

    Raises:
        ValueError: If an ark or npy file is missing, truncated (bytes expected and found) or has no matrix there.
    """
    feats = open_feats(path)
    return {utt: feats.shape(utt) for utt in feats}


def check_holds_no_code(path: str | Path) -> None:
    """Check a list that kaldiio is to read: it would unpickle an object that stands in the place of a matrix or sound.

    Raises:
        FileNotFoundError: If the list is missing.
        ValueError: If a file of the list is missing, an entry is a pickle, or kaldiio may take it for another place.
    """
    for utt, entry in read_scp(path).items():
        match = _ARK_ENTRY.fullmatch(entry)
        if "[" in entry or entry == "-" or (not match and ":" in entry):
            raise ValueError(f"{path}: utterance {utt}: '{entry}' is neither FILE nor FILE:OFFSET")
        name = match[1] if match else entry
        if not os.path.isfile(name):
            raise ValueError(f"{utt}: no such file: {name} (listed in {path})")
        with open(name, "rb") as file:
            file.seek(int(match[2]) if match else 0)
            if file.read(3) == b"PKL":
                raise ValueError(f"{path}: utterance {utt}: '{entry}' is a pickle, which may hold code")
