"""A folder of synthesised sound: wav/*.wav, wav/wav.scp, utt2rtf and made_of, which several jobs may fill at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from flowavenet_plugin.data.partial import partial_path
from flowavenet_plugin.data.provenance import read_sources, write_sources
from flowavenet_plugin.data.scp import write_scp


def wav_path(output_dir: Path, key: str) -> Path:
    """Return where an utterance's sound goes.

    Raises:
        ValueError: If the id would leave the folder.
    """
    if "/" in key or key in (".", ".."):
        raise ValueError(f"utterance {key}: an id with a slash can't name a file")
    return output_dir / "wav" / f"{key}.wav"


def write_wav(path: Path, samples: np.ndarray, fs: int) -> None:
    """Write 16-bit PCM, all or nothing; samples (in [-1, 1]) beyond full scale are clipped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        soundfile.write(partial, samples, fs, subtype="PCM_16", format="WAV")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def update_lists(output_dir: Path, keys: Sequence[str]) -> None:
    """Bring wav/wav.scp up to date, all utterances there are by now, and the other lists into the same order."""
    with locked(output_dir):
        done = {key: wav_path(output_dir, key) for key in keys}
        write_scp(output_dir / "wav" / "wav.scp", {key: path for key, path in done.items() if path.exists()})
        rtfs = {}
        if (output_dir / "utt2rtf").exists():
            # An utterance that was decoded again stands there twice; the last counts.
            lines = (output_dir / "utt2rtf").read_text(encoding="utf-8").splitlines()
            rtfs = dict(line.split() for line in lines if len(line.split()) == 2)
        write_scp(output_dir / "utt2rtf", {key: rtfs[key] for key in keys if key in rtfs})
        sources = read_sources(output_dir)
        write_sources(output_dir, {key: sources[key] for key in keys if key in sources})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, so that jobs that finish together don't lose each other's entries."""
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
