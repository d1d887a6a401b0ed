"""Lists that kaldiio is to read, as ESPnet2 does in training: is there anything in them that it must not be given?"""

from __future__ import annotations

import os
from pathlib import Path

from flowavenet_plugin.data.entries import parse_entry
from flowavenet_plugin.data.lists import read_scp
from flowavenet_plugin.data.matrices import BINARY

#: What it reads without guessing or unpickling: binary matrices, numpy's arrays, and audio in an archive or alone.
_GOOD = (BINARY, b"NPY", b"AUDIO", b"RIFF", b"fLaC")

_WAY_OUT = "copy it into a binary ark, docs/files.md says how, or let stage 1 make features"


def check_holds_no_code(path: str | Path) -> None:
    """Check a list that kaldiio is to read: it would unpickle an object that stands in the place of a matrix or sound.

    Entries are ``FILE`` or ``FILE:OFFSET`` of an uncompressed file, also with a range of frames.

    Raises:
        FileNotFoundError: If the list is missing.
        ValueError: If a file of the list is missing, an entry is a pickle, or kaldiio may take it for another place.
    """
    for utt, text in read_scp(path).items():
        where = f"{path}: utterance {utt}: '{text}'"
        try:
            entry = parse_entry(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        # It looks for brackets and the last colon itself: of these names it would make something else.
        colon = entry.offset is None and ":" in entry.name
        if "[" in entry.name or colon or entry.name == "-" or entry.hdf5:
            raise ValueError(f"{where} is neither FILE nor FILE:OFFSET, which training reads: {_WAY_OUT}")
        if not os.path.isfile(entry.name):
            raise ValueError(f"{utt}: no such file: {entry.name} (listed in {path})")
        with open(entry.name, "rb") as file:
            file.seek(entry.offset or 0)
            head = file.read(max(map(len, _GOOD)))
        if head.startswith(b"PKL"):
            raise ValueError(f"{where} is a pickle, which may hold code")
        if head and not head.startswith(_GOOD):
            raise ValueError(
                f"{where} begins with {head!r}, which is neither a binary matrix nor sound in an archive: {_WAY_OUT}"
            )
