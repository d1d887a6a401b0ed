#!/usr/bin/env python3
"""Let Debian's flite speak transcripts: hours of speech in LJSpeech's layout, <output>/metadata.csv and flac/<id>.flac.

A clip is resampled from 16 kHz without aliases, brought to a reader's level, and given a background of white noise:
a synthesiser's pauses are exact zeros and its band above 8 kHz is empty, where a density has no maximum. Every clip has
noise of its own, that of its id, so that the same transcripts give the same files. Clips that are there are kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import soundfile

from flowavenet_plugin.data.text import read_text

#: The voice is 6 dB louder than a reader of LJSpeech.
GAIN_DB = -6.0
#: Deviation of the background, -66 dB of full scale: a quiet room.
NOISE = 0.0005
PEAK = 0.99


def read_metadata(path: Path, num: int, skip: int) -> dict[str, str]:
    """Read ``id|text|normalised text`` lines.

    Args:
        path: The file.
        num: Lines wanted.
        skip: Lines to leave out at the start.

    Returns:
        Id -> what to speak.

    Raises:
        ValueError: If the file is missing, a line can't be read, or there are fewer lines.
    """
    if not path.is_file():
        raise ValueError(f"no transcripts at {path}: --metadata takes LJSpeech's metadata.csv, or a file like it")
    texts = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = [field.strip() for field in line.split("|")]
        if line.strip() and (len(fields) < 2 or not fields[-1]):
            raise ValueError(f"{path}:{number}: '{line[:60]}' is not 'id|text|normalised text'")
        if line.strip():
            texts[fields[0]] = fields[-1]
    chosen = dict(list(texts.items())[skip : skip + num])
    if len(chosen) < num:
        raise ValueError(f"{path} has {len(texts)} lines, but {num} after the first {skip} are wanted")
    return chosen


def speak(text: str, voice: str, fs: int, seed: int) -> np.ndarray:
    """Speak a text.

    Args:
        text: What to say.
        voice: Name of flite's voice.
        fs: Sampling rate wanted, Hz.
        seed: Seed of the background's noise.

    Returns:
        Samples in [-0.99, 0.99], shape (samples,).

    Raises:
        ValueError: If flite fails or says nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, spoken = Path(folder) / "text", Path(folder) / "spoken.wav"
        source.write_text(text, encoding="utf-8")
        command = ["flite", "-voice", voice, "-f", str(source), "-o", str(spoken)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0 or not spoken.is_file():
            raise ValueError(f"flite failed: {done.stderr.strip() or done.stdout.strip()} (text: {text[:60]})")
        wav, spoken_fs = soundfile.read(spoken)
    if len(wav) < spoken_fs // 4:
        raise ValueError(f"flite said {len(wav)} samples only (text: {text[:60]})")
    wav = librosa.resample(wav, orig_sr=spoken_fs, target_sr=fs, res_type="soxr_vhq") * 10.0 ** (GAIN_DB / 20.0)
    wav = wav + NOISE * np.random.default_rng(seed).standard_normal(len(wav))
    return wav * min(1.0, PEAK / np.abs(wav).max())


def make_clip(utt: str, text: str, voice: str, fs: int, folder: Path) -> int:
    """Write a clip unless it is there; return its samples."""
    path = folder / f"{utt}.flac"
    if not path.is_file():
        partial = folder / f".{utt}.{os.getpid()}.flac"
        soundfile.write(partial, speak(text, voice, fs, zlib.crc32(utt.encode())), fs, subtype="PCM_16")
        os.replace(partial, path)
    return soundfile.info(path).frames


def make_corpus(args: argparse.Namespace) -> None:
    """Make what the command line asks for; see :func:`read_metadata` and :func:`speak` for what is refused."""
    if shutil.which("flite") is None:
        raise ValueError("flite is missing (on Debian, as root: apt-get install flite)")
    folder = args.output_dir / "flac"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = read_metadata(args.metadata, args.num, args.skip)
    texts = {f"{args.voice}-{utt}": text for utt, text in chosen.items()}
    with ThreadPoolExecutor(args.nj) as pool:
        samples = list(pool.map(lambda item: make_clip(*item, args.voice, args.fs, folder), texts.items()))
    lines = "".join(f"{utt}|{text}|{text}\n" for utt, text in texts.items())
    (args.output_dir / "metadata.csv").write_text(lines, encoding="utf-8")
    print(f"{args.output_dir}: {len(texts)} clips, {sum(samples) / args.fs / 3600:.2f} hours", file=sys.stderr)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--metadata", type=Path, required=True, help="transcripts, lines id|text|normalised text")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--num", type=int, default=2000, help="clips to make")
    parser.add_argument("--skip", type=int, default=0, help="lines of the transcripts to leave out at the start")
    parser.add_argument("--voice", default="slt", help="flite's voice: slt, awb, rms, kal16, ...")
    parser.add_argument("--fs", type=int, default=22050, help="sampling rate of the corpus in Hz")
    parser.add_argument("--nj", type=int, default=2, help="clips to make at once")
    try:
        make_corpus(parser.parse_args())
    except (ValueError, OSError) as error:
        sys.exit(f"make_corpus: error: {error}")


if __name__ == "__main__":
    main()
