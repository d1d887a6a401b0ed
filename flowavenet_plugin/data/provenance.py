"""What each sound was made of: checksums of its features, of the weights and of the options, kept beside it.

A folder of sounds has one small list, ``made_of``, a line per utterance::

    utt1 sound=3f2a... feats=91bc... weights=07de... temperature=0.8 seed=0

So a sound is kept only as long as it would come out the same, and scores can tell which sound they are of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from flowavenet_plugin.data.partial import naming
from flowavenet_plugin.data.scp import write_scp
from flowavenet_plugin.data.text import read_text

#: Name of the list.
MADE_OF = "made_of"
#: How a sound was made: name -> value, each a word.
Source = dict[str, str]


def checksum(*parts: bytes) -> str:
    """Return 16 hexadecimal digits that tell contents apart."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def file_checksum(path: str | Path) -> str:
    """Return the checksum of a file's content.

    Raises:
        OSError: If it can't be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def feats_checksum(feats: np.ndarray) -> str:
    """Return the checksum of features, shape (frames, dim)."""
    return checksum(str(feats.shape).encode(), np.ascontiguousarray(feats, dtype=np.float32).tobytes())


#: Options of a decoding that earlier versions didn't have, and so don't tell.
UNTOLD = {"refine": "0", "chunk_frames": "0"}


def read_sources(folder: str | Path) -> dict[str, Source]:
    """Read how the sounds of a folder were made: utterance -> source; of an utterance made twice the last.

    A line that a kill cut short is left out, as is everything where there is no list.

    Raises:
        ValueError: If the list is no UTF-8; with file and line.
    """
    path = Path(folder) / MADE_OF
    sources = {}
    for line in read_text(path).splitlines() if path.is_file() else []:
        utt, *words = line.split(" ")
        source = dict(word.split("=", 1) for word in words if "=" in word)
        if words and len(source) == len(words):
            sources[utt] = {**UNTOLD, **source} if "weights" in source else source
    return sources


def add_source(folder: Path, utt: str, source: Mapping[str, str]) -> None:
    """Append a line at once, as a run may be killed; for whoever holds the folder's lock."""
    with naming(folder / MADE_OF), open(folder / MADE_OF, "ab+") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        cut = file.read(1) not in (b"", b"\n")  # by a kill: the rest of that line must not swallow this one
        file.write(f"{chr(10) * cut}{utt} {_line(source)}\n".encode())


def write_sources(folder: Path, sources: Mapping[str, Mapping[str, str]]) -> None:
    """Write the list, all or nothing."""
    write_scp(folder / MADE_OF, {utt: _line(source) for utt, source in sources.items()})


def _line(source: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in source.items())


def kept(path: Path, recorded: Source | None, wanted: Mapping[str, str]) -> bool:
    """Whether a sound is there, is the one that was recorded, and was made as is wanted now.

    Args:
        path: Its file.
        recorded: How it was made; None: not known.
        wanted: How it would be made now; ``sound`` isn't in it.
    """
    if recorded is None or not path.is_file():
        return False
    if any(recorded.get(name) != value for name, value in wanted.items()):
        return False
    return recorded.get("sound") == file_checksum(path)


def check_sources(
    wavs: Mapping[str, str], recorded: Mapping[str, Source], wanted: Mapping[str, Mapping[str, str]], folder: Path
) -> None:
    """Compare sounds with what is known of them.

    Args:
        wavs: Utterance -> file.
        recorded: Of the folder; utterances that aren't in it aren't compared.
        wanted: Utterance -> what its source has to be, as far as that's known; ``sound`` isn't in it.
        folder: For messages.

    Raises:
        ValueError: If a sound was replaced, or made of other features, weights or options; with both values.
    """
    for utt, path in wavs.items():
        if utt not in recorded:
            continue
        for name, value in {**wanted.get(utt, {}), "sound": file_checksum(path)}.items():
            if (old := recorded[utt].get(name)) != value:
                raise ValueError(
                    f"{utt}: {path} isn't what decoding would make now: {name} is {old} in {folder / MADE_OF}, but "
                    f"{value} now. Decode again (run.sh: --stage 3)"
                )


def audio_checksums(wavs: Mapping[str, str]) -> dict[str, str]:
    """Return utterance -> checksum of its audio file.

    Raises:
        OSError: If one can't be read.
    """
    return {utt: file_checksum(path) for utt, path in wavs.items()}


def changed_audio(wavs: Mapping[str, str], checksums: Mapping[str, str], utts: Collection[str]) -> list[str]:
    """Return the utterances whose audio isn't what it was, or is gone."""
    return [utt for utt in utts if not Path(wavs[utt]).is_file() or file_checksum(wavs[utt]) != checksums.get(utt)]
