"""Features that a list or an archive names: Kaldi's matrices, numpy's, and HDF5 datasets.

Nothing here ever unpickles: kaldiio's arks may hold pickles, so entries and headers are checked before kaldiio sees
them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from flowavenet_plugin.data import hdf5
from flowavenet_plugin.data.archive import open_archive
from flowavenet_plugin.data.archive_index import is_archive, read_archive
from flowavenet_plugin.data.entries import Entry, parse_entry
from flowavenet_plugin.data.lists import find_listed, read_scp
from flowavenet_plugin.data.matrices import BINARY, read_header, read_values


class FeatsGoneError(ValueError):
    """A list names a file that isn't there."""


class FeatsReader(Mapping):
    """Features of a list, read when asked for; see :func:`open_feats`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.entries = read_archive(path) if is_archive(path) else read_scp(path)

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
        path, entry = self._locate(utt)
        shape = _whole_shape(path, entry, utt)
        try:
            feats = _read_whole(path, entry)
        except Exception as error:  # what is damaged makes the readers fail in many ways
            raise ValueError(f"{utt}: can't read the features in {path}: {error!r}") from error
        # A copy, as what kaldiio returns can't be written to; values beyond single precision become infinite.
        with np.errstate(over="ignore"):
            feats = np.array(feats, dtype=np.float32)
        if feats.shape != shape:
            raise ValueError(f"{utt}: {path} holds features of shape {feats.shape}, its header says {shape}")
        feats = feats[_wanted(entry, shape, path, utt)]
        if bad := int((~np.isfinite(feats)).sum()):
            raise ValueError(f"{utt}: {bad} of {feats.size} features in {path} are not finite")
        return feats

    def shape(self, utt: str) -> tuple[int, int]:
        """(frames, dim) from the file's header; the data is not read, but has to be there in full.

        A text matrix has no header: it is read.
        """
        path, entry = self._locate(utt)
        rows, cols = _wanted(entry, _whole_shape(path, entry, utt), path, utt)
        return rows.stop - rows.start, cols.stop - cols.start

    def _locate(self, utt: str) -> tuple[Path, Entry]:
        """File and meaning of an entry."""
        text = self.entries[utt]
        try:
            entry = parse_entry(text)
        except ValueError as error:
            raise ValueError(f"{utt}: '{text}' in {self.path}: {error}") from None
        if (found := find_listed(entry.name, self.path, utt)) is None:
            raise FeatsGoneError(f"{utt}: no such feature file: {entry.name} (listed in {self.path})")
        if entry.offset is None and not entry.hdf5 and not _is_npy(entry) and not _begins_as_matrix(found):
            raise ValueError(
                f"{utt}: '{text}' in {self.path} is neither FILE.ark:OFFSET nor FILE.npy, FILE.h5 or a file of one "
                "binary matrix: Kaldi's copy-feats writes an ark of others"
            )
        return found, entry


def _is_npy(entry: Entry) -> bool:
    return entry.offset is None and entry.name.endswith(".npy")


def _begins_as_matrix(path: Path) -> bool:
    with open_archive(path) as window:
        return window.read(len(BINARY)) == BINARY


def _whole_shape(path: Path, entry: Entry, utt: str) -> tuple[int, int]:
    """(frames, dim) of the whole matrix that an entry names, or of which it names a range.

    Raises:
        ValueError: If there is none, or not all of it; with the utterance and the file.
    """
    if entry.hdf5:
        return _hdf5_shape(path, entry, utt)
    with open_archive(path, entry.offset or 0) as window:
        try:
            shape, end = read_header(window, _is_npy(entry))
        except Exception as error:  # NumPy's reader of headers lets errors of the tokenizer pass, and others
            at = "" if entry.offset is None else f" at byte {entry.offset}"
            why = "its header is cut off" if isinstance(error, struct.error) else error
            why = why if isinstance(error, (ValueError, struct.error)) else repr(error)
            raise ValueError(f"{utt}: no features{at} of {path}, which has {window.there} bytes: {why}") from None
        if window.size < end:
            expected = window.start + end
            raise ValueError(f"{utt}: {path} is truncated: {expected} bytes expected, {window.there} found")
    return shape


def _hdf5_shape(path: Path, entry: Entry, utt: str) -> tuple[int, int]:
    name = entry.dataset or hdf5.FEATS
    try:
        shape = hdf5.dataset_shape(str(path), name)
    except ValueError as error:
        raise ValueError(f"{utt}: no features in {path}: {error}") from None
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{utt}: no features in {path}: '{name}' has the shape {shape}; (frames, dim) is wanted")
    return shape[0], shape[1]


def _read_whole(path: Path, entry: Entry) -> np.ndarray:
    if entry.hdf5:
        return hdf5.read_dataset(str(path), entry.dataset or hdf5.FEATS)
    with open_archive(path, entry.offset or 0) as window:
        return read_values(window, _is_npy(entry))


def _wanted(entry: Entry, shape: tuple[int, int], path: Path, utt: str) -> tuple[slice, slice]:
    """Return the frames and dimensions that an entry names.

    Raises:
        ValueError: If there are fewer; with the utterance, the file and both numbers.
    """
    wanted = []
    for span, there, what in ((entry.rows, shape[0], "frames"), (entry.cols, shape[1], "dimensions")):
        first, last = (0, there - 1) if span is None else span
        if last >= there:
            raise ValueError(
                f"{utt}: {what} {first} to {last} are wanted (both inclusive, counted from 0), but {path} has {there} "
                f"{what}"
            )
        wanted.append(slice(first, last + 1))
    return wanted[0], wanted[1]


def open_feats(path: str | Path) -> FeatsReader:
    """Open features by their list, or an archive of them.

    Args:
        path: A feats.scp, whose entries are ``FILE.ark:OFFSET`` (binary or text, packed by gzip or not), ``FILE.npy``,
            ``FILE.h5`` (ParallelWaveGAN's, dataset ``feats``) or ``FILE.h5:DATASET``, each also with a range
            ``[first:last]`` of frames. Relative entries are found as :func:`find_listed` does. Or an ark itself, binary
            or text, packed by gzip or not.

    Returns:
        Id -> (frames, dim) float32, each read when asked for; ValueError then, if its file is missing or damaged.
    """
    return FeatsReader(path)


def check_arks(path: str | Path) -> dict[str, tuple[int, int]]:
    """Check the header of every entry of a feats.scp, without reading the data.

    Returns:
        Id -> (frames, dim).

    Raises:
        ValueError: If a file is missing, truncated (bytes expected and found) or has no matrix there.
    """
    feats = open_feats(path)
    return {utt: feats.shape(utt) for utt in feats}
