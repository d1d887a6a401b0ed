"""What an entry of a Kaldi list names: a file, or a part of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from flowavenet_plugin.data.lists import find_listed, is_file

#: Names of HDF5 files, as ParallelWaveGAN (.h5) and others write them.
_HDF5 = r"\.(?:h5|hdf5)"
_HDF5_ENTRY = re.compile(rf"(?P<name>.+{_HDF5})(?::(?P<dataset>[^\[\]]+))?")
# Numbers of more digits are no places in any file, nor does Python read all of them.
_ENTRY = re.compile(r"(?P<name>.+?)(?::(?P<offset>\d{1,18}))?")
_RANGE = re.compile(r"(?P<rest>.*)\[(?P<range>[^\[\]]*)\]")

#: First and last place, both inclusive, counted from 0.
Span = tuple[int, int]


class Entry(NamedTuple):
    """A file or a part of one.

    Attributes:
        name: The file.
        offset: Byte at which the part of an archive begins; None: the entry has none.
        hdf5: Whether the file is an HDF5 file.
        dataset: The dataset of it that is meant; None: as ParallelWaveGAN calls it.
        rows: Frames that are wanted, None: all.
        cols: Dimensions that are wanted, None: all.
    """

    name: str
    offset: int | None = None
    hdf5: bool = False
    dataset: str | None = None
    rows: Span | None = None
    cols: Span | None = None

    @property
    def has_range(self) -> bool:
        """Whether the entry ends with a range."""
        return self.rows is not None or self.cols is not None


def parse_entry(text: str) -> Entry:
    """Read ``FILE``, ``FILE:OFFSET``, ``FILE.h5`` or ``FILE.h5:DATASET``, each with or without ``[range]``.

    A range is Kaldi's: ``[10:59]`` are frames, ``[10:59,0:39]`` also dimensions, ``[,0:39]`` these alone.

    Raises:
        ValueError: If a range can't be one.
    """
    rows = cols = None
    if (ranged := _RANGE.fullmatch(text)) is not None:
        text, (rows, cols) = ranged["rest"], _parse_range(ranged["range"])
    if (match := _HDF5_ENTRY.fullmatch(text)) is not None:
        return Entry(match["name"], None, True, match["dataset"], rows, cols)
    match = _ENTRY.fullmatch(text)
    if match is None:
        return Entry(text, None, False, None, rows, cols)
    offset = None if match["offset"] is None else int(match["offset"])
    return Entry(match["name"], offset, False, None, rows, cols)


def entry_of(text: str) -> Entry:
    """Read an entry as :func:`parse_entry` does, but a file of the whole name goes before a part of another.

    Raises:
        ValueError: If a range can't be one.
    """
    if is_file(text):
        return Entry(text, hdf5=re.fullmatch(rf".+{_HDF5}", text) is not None)
    return parse_entry(text)


def _parse_range(text: str) -> tuple[Span | None, Span | None]:
    parts = text.split(",")
    if len(parts) > 2 or not any(part not in ("", ":") for part in parts):
        raise ValueError(f"the range [{text}] names neither frames, [first:last], nor dimensions, [,first:last]")
    rows, cols = (_parse_span(part, text) for part in (*parts, "")[:2])
    return rows, cols


def _parse_span(part: str, text: str) -> Span | None:
    if part in ("", ":"):
        return None
    match = re.fullmatch(r"\s*(\d{1,18}):(\d{1,18})\s*", part, re.ASCII)
    if match is None or int(match[1]) > int(match[2]):
        raise ValueError(f"the range [{text}] can't be: first:last is wanted, counted from 0, both inclusive")
    return int(match[1]), int(match[2])


def find_entry(text: str, scp: str | Path, utt: str) -> str:
    """Find the file of an entry as :func:`find_listed` does; a file of the whole name goes before a part of another.

    Args:
        text: The entry, as the list has it.
        scp: The list.
        utt: Utterance id, for the message.

    Returns:
        The entry with the path that was found; as it is, if there is none.

    Raises:
        ValueError: If the path could be two files, or a range can't be one.
    """
    if (whole := find_listed(text, scp, utt)) is not None:
        return str(whole)
    try:
        name = parse_entry(text).name
    except ValueError as error:
        raise ValueError(f"{utt}: '{text}' in {scp}: {error}") from None
    found = find_listed(name, scp, utt)
    return text if found is None else f"{found}{text[len(name) :]}"
