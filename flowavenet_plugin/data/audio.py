"""Read recordings or parts of them, from files, archives and HDF5, and notice the damaged ones."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from flowavenet_plugin.data import hdf5
from flowavenet_plugin.data.archive import open_archive
from flowavenet_plugin.data.archived_sound import sound_at
from flowavenet_plugin.data.entries import Entry, entry_of
from flowavenet_plugin.data.lists import is_file

#: Peak (full scale is 1) up to which floating-point audio is let pass: a little beyond is common, far beyond an error.
LARGEST_PEAK = 2.0
#: Seconds by which segments may go beyond their recording, as in Kaldi: times are often rounded.
OVERSHOOT = 0.5
#: The mean of all channels, in the place of one.
MIX = "mix"
# Writers that stream don't know the length beforehand and put a number in this range into the WAV header.
_UNKNOWN_WAV_BYTES = 0x7FFFF000
#: Samples that are read at once, of all channels together.
_BLOCK = 2**22


class Part(NamedTuple):
    """What of a recording is wanted.

    Attributes:
        start: In seconds.
        end: In seconds; -1: the end of the recording.
        channel: From 0, or :data:`MIX`; None: there has to be only one.
    """

    start: float = 0.0
    end: float = -1.0
    channel: int | str | None = None


#: All of a recording of one channel.
WHOLE = Part()


def read_audio(
    path: str | Path, utt: str, any_scale: bool = False, part: Part = WHOLE, hdf5_fs: int | None = None
) -> tuple[np.ndarray, int]:
    """Read a recording, or a part of it, in one channel.

    Args:
        path: A file of any format that libsndfile knows; ``FILE:OFFSET`` of an archive (a WAV as Kaldi writes it, or
            what ESPnet2 writes as ``flac.ark`` or ``wav.ark``); ``FILE.h5`` of ParallelWaveGAN (dataset ``wave``) or
            ``FILE.h5:DATASET``.
        utt: Utterance id, for the messages.
        any_scale: Take what is far beyond full scale, too: sound that is to be judged.
        part: What of it is wanted.
        hdf5_fs: Sampling rate in Hz to take HDF5 files to have, which don't tell; None: they are refused.

    Returns:
        Samples, float32, shape (samples,), and the sampling rate in Hz.

    Raises:
        ValueError: If the file is missing, unreadable, truncated, has other channels or ends before the part does, or
            is far beyond full scale.
    """
    try:
        entry = entry_of(str(path))
    except ValueError as error:
        raise ValueError(f"{utt}: '{path}': {error}") from None
    if entry.has_range:
        raise ValueError(f"{utt}: '{path}' is a range of samples, which isn't taken: name start and end in segments")
    if not is_file(entry.name):
        raise ValueError(f"{utt}: no such audio file: {path}")
    if entry.hdf5:
        audio, fs = _read_hdf5(entry, utt, hdf5_fs, part)
    elif entry.offset is None:
        check_wav_is_whole(path, utt)
        audio, fs = _read_sound(path, str(path), utt, part)
    else:
        with open_archive(entry.name, entry.offset) as window:
            sound = sound_at(window, entry.name, utt)
            _check_riff(sound.buffered(), sound.size, str(path), utt)
            audio, fs = _read_sound(sound.buffered(), str(path), utt, part)
    mono = _one_channel(audio, part.channel, f"{utt}: {path}")
    if not any_scale:
        check_scale(mono, f"{utt}: {path}")
    return mono, fs


def _read_sound(file: str | Path | BinaryIO, path: str, utt: str, part: Part) -> tuple[np.ndarray, int]:
    """Return the wanted samples of all channels, shape (samples, channels), and the rate."""
    try:
        with soundfile.SoundFile(file) as sound:
            fs = sound.samplerate
            first, last = _samples(part, sound.frames, fs, f"{utt}: {path}")
            if first:
                sound.seek(first)
            audio = _in_blocks(sound, last - first)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{utt}: can't read {path} as audio: {error}") from None
    if len(audio) < last - first:
        raise ValueError(f"{utt}: {path} is truncated: {last - first} samples expected, {len(audio)} found")
    return audio, fs


def _in_blocks(sound: soundfile.SoundFile, count: int) -> np.ndarray:
    """Read samples of all channels, shape (samples, channels), fewer if there are no more.

    Memory is taken for what is there, not for what a damaged header promises.
    """
    most = max(_BLOCK // sound.channels, 1)
    blocks, read = [], 0
    while read < count:
        block = sound.read(min(count - read, most), dtype="float32", always_2d=True)
        blocks.append(block)
        read += len(block)
        if len(block) < most:
            break
    return np.concatenate(blocks) if blocks else np.zeros((0, sound.channels), dtype=np.float32)


def _read_hdf5(entry: Entry, utt: str, fs: int | None, part: Part) -> tuple[np.ndarray, int]:
    name = entry.dataset or hdf5.WAVE
    if fs is None:
        raise ValueError(f"{utt}: {entry.name} is HDF5, which doesn't tell its sampling rate: write it as a WAV file")
    try:
        audio = hdf5.read_dataset(entry.name, name)
    except ValueError as error:
        raise ValueError(f"{utt}: can't read {entry.name} as audio: {error}") from None
    if audio.ndim not in (1, 2):
        raise ValueError(f"{utt}: '{name}' in {entry.name} has the shape {audio.shape}; (samples,) is wanted")
    first, last = _samples(part, len(audio), fs, f"{utt}: {entry.name}")
    return audio.reshape(len(audio), -1)[first:last], fs


def _samples(part: Part, there: int, fs: int, what: str) -> tuple[int, int]:
    """Return the first sample of a part and the one after the last, cut down as Kaldi does.

    Raises:
        ValueError: If the recording ends before, by more than times may be rounded; with both times.
    """
    seconds = there / fs
    if part.start >= seconds and (part.start or part.end != -1):
        raise ValueError(f"{what} ends at {seconds:g} s, but the utterance starts at {part.start:g} s")
    if part.end == -1:
        return int(part.start * fs), there
    if part.end > seconds + OVERSHOOT:
        raise ValueError(f"{what} ends at {seconds:g} s, but the utterance at {part.end:g} s")
    if int(part.end * fs) > there:
        logging.warning(f"{what} ends at {seconds:g} s, the utterance at {part.end:g} s: it is cut there")
    return int(part.start * fs), min(int(part.end * fs), there)


def count_channels(path: str | Path) -> int:
    """Return how many channels an audio file has, which has been read before."""
    return soundfile.info(path).channels


def _one_channel(audio: np.ndarray, channel: int | str | None, what: str) -> np.ndarray:
    """Return (samples,) of audio of shape (samples, channels).

    Raises:
        ValueError: If there are several channels and none is chosen, or one that isn't there.
    """
    channels = audio.shape[1]
    if channel == MIX:
        return audio.mean(axis=1)
    if channel is None and channels > 1:
        raise ValueError(
            f"{what} has {channels} channels, 1 is wanted: stage 1 takes one of them (--channel 0 ... {channels - 1}) "
            "or their mean (--channel mix)"
        )
    if channel is not None and int(channel) >= channels:
        raise ValueError(f"{what} has {channels} channel(s), counted from 0: there is no channel {channel}")
    return audio[:, int(channel or 0)]


def check_scale(audio: np.ndarray, what: str) -> None:
    """Refuse audio that isn't scaled to [-1, 1].

    Args:
        audio: Samples, any shape; NaN is looked for elsewhere.
        what: For the message.

    Raises:
        ValueError: If it goes far beyond.
    """
    peak = float(np.abs(audio).max(initial=0.0))
    if peak > LARGEST_PEAK and np.isfinite(peak):
        scale = ", so the samples are probably 16-bit integers: divide them by 32768" if 100 < peak <= 32768 else ""
        raise ValueError(f"{what} has a peak of {peak:g}, at most 1 is expected{scale}")


def check_wav_is_whole(path: str | Path, utt: str) -> None:
    """Compare the length in a RIFF header with the file's: libsndfile returns what there is, without a word.

    Raises:
        ValueError: If there is less; files that are no WAV pass.
    """
    with open(path, "rb") as file:
        _check_riff(file, os.fstat(file.fileno()).st_size, str(path), utt)


def _check_riff(file: BinaryIO, there: int, path: str, utt: str) -> None:
    """Do the work of :func:`check_wav_is_whole` on an open file of ``there`` bytes."""
    riff = file.read(12)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        return
    bytes_per_sample = 1
    while len(chunk := file.read(8)) == 8:
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        start = file.tell()
        if name == b"data":
            if size < _UNKNOWN_WAV_BYTES and there < start + size:
                raise ValueError(
                    f"{utt}: {path} is truncated: its header promises {size // bytes_per_sample} samples, "
                    f"{(there - start) // bytes_per_sample} are there"
                )
            return
        if name == b"fmt ":
            bytes_per_sample = max(struct.unpack("<H", file.read(16)[12:14].ljust(2, b"\0"))[0], 1)
        file.seek(start + size + size % 2)
