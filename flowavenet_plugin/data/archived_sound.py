"""Sound at a place in an archive, as Kaldi (WAV after WAV) and ESPnet2 (``flac.ark``, ``wav.ark``) write it."""

from __future__ import annotations

import struct

from flowavenet_plugin.data.archive import Window
from flowavenet_plugin.data.matrices import BINARY

#: What kaldiio puts before a file of any format: this, the bytes of its length, and the length.
_CONTAINER = b"AUDIO"
# Writers that stream don't know the length of what they write.
_UNKNOWN_RIFF_BYTES = 0x7FFFF000


def sound_at(window: Window, path: str, utt: str) -> Window:
    """Find where a sound begins and ends.

    Args:
        window: Of an archive, from the place that its list names.
        path: The archive.
        utt: Utterance id, for the messages.

    Returns:
        The part that is the sound, a file of its own of a format that libsndfile may know.

    Raises:
        ValueError: If there is something else, or not all of it; with the utterance, the file and both sizes.
    """
    file = window.buffered()
    head = file.read(len(_CONTAINER) + 1)
    where = f"at byte {window.start} of {path}"
    if head.startswith(b"fLaC"):  # it knows itself where it ends
        return window
    if head.startswith(b"RIFF"):
        file.seek(4)
        size = struct.unpack("<I", file.read(4).ljust(4, b"\0"))[0]
        if size == 0 or size >= _UNKNOWN_RIFF_BYTES:
            raise ValueError(f"{utt}: the WAV {where} doesn't tell its length, which it must in an archive")
        return window.part(0, 8 + size)  # if it is cut short, its own header tells
    if head.startswith(_CONTAINER) and len(head) > len(_CONTAINER):
        digits = head[-1]
        start, size = len(head) + digits, int.from_bytes(file.read(digits), "little")
        if start + size > window.size:
            end = window.start + start + size
            raise ValueError(f"{utt}: {path} is truncated: {end} bytes expected, {window.there} found")
        return window.part(start, size)
    if head.startswith(b"PKL"):
        raise ValueError(f"{utt}: there is a pickle {where}, which may hold code: write the audio as WAV or FLAC")
    if head.startswith(BINARY) or head.lstrip().startswith(b"["):
        raise ValueError(f"{utt}: there are features {where}, not audio")
    raise ValueError(f"{utt}: no audio {where}, which has {window.there} bytes: found {head!r}")
