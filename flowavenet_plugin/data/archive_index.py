"""An archive of matrices in the place of a list: which utterances it holds, and where."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from flowavenet_plugin.data.archive import open_archive
from flowavenet_plugin.data.matrices import read_header

_HDF5_MAGIC = b"\x89HDF"
#: An id, and what begins a matrix: binary, or text.
_FIRST = re.compile(rb"\s*\S+ +(?:\0B|\[\s)")
_KEY = re.compile(rb"\s*(\S+) ")
_LONGEST_KEY = 4096


def is_archive(path: str | Path) -> bool:
    """Whether a file is an archive of matrices, packed by gzip or not, and not a list.

    Raises:
        ValueError: If it is an HDF5 file or a gzip file of something else, which can't be a list.
    """
    if not Path(path).is_file():
        return False
    with open_archive(path) as window:
        head = window.buffered().read(_LONGEST_KEY)
        packed = window.packed
    if head.startswith(_HDF5_MAGIC):
        raise ValueError(f"{path} is an HDF5 file, not a list: write a list of lines 'utterance FILE.h5'")
    found = _FIRST.match(head) is not None
    if packed and not found:
        raise ValueError(f"{path} is a gzip file, but not of an archive of matrices: unpack it (gunzip)")
    return found


def read_archive(path: str | Path) -> dict[str, str]:
    """Look through an archive of matrices, binary or text.

    Returns:
        Utterance id -> ``FILE:OFFSET``, in the order of the file.

    Raises:
        ValueError: If it is damaged, or an id occurs twice; with the file, the byte and the id.
    """
    entries: dict[str, str] = {}
    with open_archive(path) as window:
        at = 0
        while (head := window.part(at).buffered().read(_LONGEST_KEY)).strip():
            key = _KEY.match(head)
            try:
                utt = key[1].decode() if key is not None else ""
                start = at + len(key[0] if key is not None else b"")
                if not utt:
                    raise ValueError(f"found {head[:20]!r}, not an id and a space")
                end = start + read_header(window.part(start), npy=False).end
            except (ValueError, struct.error) as error:
                why = "the header of a matrix is cut off" if isinstance(error, struct.error) else error
                last = f" (after {list(entries)[-1]})" if entries else ""
                raise ValueError(f"{path}: no features of an utterance at byte {at}{last}: {why}") from None
            if end > window.size:
                raise ValueError(f"{utt}: {path} is truncated: {end} bytes expected, {window.size} found")
            if utt in entries:
                raise ValueError(f"{path}: utterance {utt} occurs twice: at byte {start} and at {entries[utt]}")
            entries[utt] = f"{Path(path).absolute()}:{start}"
            at = end
    return entries
