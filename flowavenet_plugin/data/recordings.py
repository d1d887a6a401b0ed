"""The recordings of a data folder: wav.scp, and Kaldi's segments beside it that say what of them is an utterance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flowavenet_plugin.data.audio import WHOLE, Part, count_channels
from flowavenet_plugin.data.entries import Entry, entry_of, find_entry, parse_entry
from flowavenet_plugin.data.lists import find_listed, read_ids, read_scp

#: Name of the list that cuts recordings into utterances.
SEGMENTS = "segments"
_WRITTEN = "stage 1 (extract_feats) writes a list of utterances, dump/.../wav.scp, give that one"


class Recording(NamedTuple):
    """The audio of an utterance.

    Attributes:
        entry: The file, or the place in an archive or HDF5 file, see :func:`~flowavenet_plugin.data.audio.read_audio`.
        part: What of it is the utterance.
    """

    entry: str
    part: Part = WHOLE

    @property
    def file(self) -> str:
        """The file that it lies in."""
        return entry_of(self.entry).name

    @property
    def is_hdf5(self) -> bool:
        """Whether it lies in an HDF5 file, which doesn't tell its sampling rate."""
        return entry_of(self.entry).hdf5

    def of_channel(self, channel: int | str | None) -> Recording:
        """Return the same of a channel, if segments name none themselves."""
        return self if self.part.channel is not None else self._replace(part=self.part._replace(channel=channel))

    def is_plain_file(self) -> bool:
        """Whether the utterance is all of a file of its own and of one channel, so that every reader takes it.

        The file is there and audio.
        """
        if entry_of(self.entry) != Entry(self.entry) or self.part._replace(channel=None) != WHOLE:
            return False
        return self.part.channel is None or count_channels(self.entry) == 1


def segments_beside(wav_scp: str | Path) -> Path | None:
    """Return the segments that belong to a list of recordings; None: each recording is an utterance."""
    path = Path(wav_scp).parent / SEGMENTS
    return path if path.is_file() else None


def read_recordings(wav_scp: str | Path, segments: str | Path | None = None) -> dict[str, Recording]:
    """Read which audio each utterance is.

    Args:
        wav_scp: List of recordings. Their files are found as :func:`find_entry` does.
        segments: Kaldi's, lines ``utterance recording start end`` in seconds, where the end -1 is the recording's, and
            perhaps the channel from 0; None: ``segments`` beside wav_scp, if there is one.

    Returns:
        Utterance -> its audio, in the order of segments or else of wav_scp.

    Raises:
        OSError: If a list can't be read.
        ValueError: If a list is damaged, times are impossible, a recording isn't listed, or the transcripts or speakers
            beside wav_scp are those of recordings; with the utterance and the file.
    """
    entries = read_scp(wav_scp)
    segments = segments if segments is not None else segments_beside(wav_scp)
    if segments is None:
        return {utt: Recording(find_entry(text, wav_scp, utt)) for utt, text in entries.items()}
    recordings, found, names = {}, {}, {}
    for utt, line in read_scp(segments).items():
        name, part = _parse(line, f"{segments}: utterance {utt}")
        if name not in entries:
            raise ValueError(f"{segments}: utterance {utt} is of recording {name}, which is not in {wav_scp}")
        if name not in found:
            found[name] = find_entry(entries[name], wav_scp, name)
        recordings[utt] = Recording(found[name], part)
        names[utt] = name
    for other in ("text", "utt2spk"):
        _check_by_utterance(Path(wav_scp).with_name(other), names)
    return recordings


def _check_by_utterance(path: Path, names: Mapping[str, str]) -> None:
    """Refuse a list that tells of recordings what is asked of utterances; ``names`` are utterance -> recording."""
    known = set(read_ids(path)) if path.is_file() else set()
    wrong = [utt for utt, name in names.items() if utt not in known and name in known]
    if wrong:
        raise ValueError(
            f"{path}: utterance {wrong[0]} isn't there, but its recording {names[wrong[0]]} is ({len(wrong)} of "
            f"{len(names)} utterances): where there are segments, the list is by utterance"
        )


def _parse(line: str, where: str) -> tuple[str, Part]:
    """Return recording and part of a line of segments, without its utterance."""
    name, *fields = line.split()
    if len(fields) not in (2, 3):
        raise ValueError(f"{where}: '{line}' is not 'recording start end', in seconds, and perhaps a channel")
    try:
        start, end = map(float, fields[:2])
    except ValueError:
        raise ValueError(f"{where}: '{fields[0]}' and '{fields[1]}' are not start and end in seconds") from None
    if not (math.isfinite(start) and math.isfinite(end) and start >= 0 and (end == -1 or end > start)):
        raise ValueError(
            f"{where}: from {fields[0]} to {fields[1]} s is impossible: the start is at least 0 and the end after it, "
            "or -1 for the recording's"
        )
    if len(fields) == 3 and not fields[2].isdecimal():
        raise ValueError(f"{where}: the channel '{fields[2]}' is no number from 0")
    return name, Part(start, end, int(fields[2]) if len(fields) == 3 else None)


def read_files(scp: str | Path) -> dict[str, str]:
    """Read a list of whole files (a wav.scp of utterances): utterance -> path, found as :func:`find_listed` does.

    Raises:
        OSError: If the list can't be read.
        ValueError: If it is damaged, a path could be two files, or it names recordings that segments cut, or parts of
            archives: stage 1 alone takes these. What isn't there is told when it is read.
    """
    if (segments := segments_beside(scp)) is not None:
        raise ValueError(f"{scp} lists recordings, which {segments} cuts into utterances: {_WRITTEN}")
    return {utt: _whole_file(text, scp, utt) for utt, text in read_scp(scp).items()}


def _whole_file(text: str, scp: str | Path, utt: str) -> str:
    if (found := find_listed(text, scp, utt)) is not None:
        return str(found)
    name = parse_entry(find_entry(text, scp, utt)).name
    if name != text and Path(name).is_file():
        raise ValueError(f"{utt}: '{text}' in {scp} is a part of a file, not one of its own: {_WRITTEN}")
    return text
