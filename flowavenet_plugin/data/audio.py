"""Read recordings, and notice the damaged ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import soundfile

#: Peak (full scale is 1) up to which floating-point audio is let pass: a little beyond is common, far beyond an error.
LARGEST_PEAK = 2.0
# Writers that stream don't know the length beforehand and put a number in this range into the WAV header.
_UNKNOWN_WAV_BYTES = 0x7FFFF000


def read_audio(path: str | Path, utt: str, any_scale: bool = False) -> tuple[np.ndarray, int]:
    """Read a mono recording.

    Args:
        path: A file of any format that libsndfile knows.
        utt: Utterance id, for the messages.
        any_scale: Take what is far beyond full scale, too: sound that is to be judged.

    Returns:
        Samples, float32, shape (samples,), and the sampling rate in Hz.

    Raises:
        ValueError: If the file is missing, unreadable, truncated, has more than one channel, or is far beyond full
            scale.
    """
    if not Path(path).is_file():
        raise ValueError(f"{utt}: no such audio file: {path}")
    check_wav_is_whole(path, utt)
    try:
        with soundfile.SoundFile(path) as file:
            expected, channels, fs = file.frames, file.channels, file.samplerate
            audio = file.read(dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{utt}: can't read {path} as audio: {error}") from None
    if channels != 1:
        raise ValueError(f"{utt}: {path} has {channels} channels, 1 is wanted")
    if len(audio) < expected:
        raise ValueError(f"{utt}: {path} is truncated: {expected} samples expected, {len(audio)} found")
    if not any_scale:
        check_scale(audio, f"{utt}: {path}")
    return audio[:, 0], fs


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
        there = os.fstat(file.fileno()).st_size
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
