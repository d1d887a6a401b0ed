"""A folder of synthesised sound: wav/*.wav, wav/wav.scp, utt2rtf and made_of, which several jobs may fill at once."""

from __future__ import annotations

import fcntl
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from flowavenet_plugin.data.audio import check_wav_is_whole
from flowavenet_plugin.data.partial import naming, whole_file
from flowavenet_plugin.data.provenance import read_sources, write_sources
from flowavenet_plugin.data.scp import read_scp, write_scp
from flowavenet_plugin.data.text import read_text

#: Name of the list of utterances that couldn't be decoded, with the reason.
BAD_UTTS = "bad_utts"
_WAV_HEADER = 44


def wav_path(output_dir: Path, key: str) -> Path:
    """Return where an utterance's sound goes.

    Raises:
        ValueError: If the id would leave the folder.
    """
    if "/" in key or key in (".", ".."):
        raise ValueError(f"utterance {key}: an id with a slash can't name a file")
    return output_dir / "wav" / f"{key}.wav"


def write_wav(path: Path, samples: np.ndarray, fs: int, subtype: str = "PCM_16") -> None:
    """Write a WAV, all or nothing.

    Args:
        path: The file.
        samples: In [-1, 1]; in PCM those beyond are clipped.
        fs: Sampling rate in Hz.
        subtype: As libsndfile calls it.

    Raises:
        OSError: If it can't be written; the message names the file and why.
    """
    with whole_file(path) as partial:
        soundfile.write(partial, samples, fs, subtype=subtype, format="WAV")


def update_lists(output_dir: Path, keys: Sequence[str], bad: Mapping[str, str], tried: Collection[str]) -> None:
    """Bring wav/wav.scp up to date, all utterances there are by now, and the other lists into the same order.

    Args:
        output_dir: The folder.
        keys: Utterances of the list that is decoded. What was decoded of another one before stays in front of them.
        bad: Utterance -> why it can't be decoded; kept in bad_utts.
        tried: Utterances that aren't bad any more, if they were.

    Raises:
        ValueError: If one of the lists is damaged; with the file.
    """
    with locked(output_dir):
        listed = output_dir / "wav" / "wav.scp"
        before = read_scp(listed) if listed.is_file() else {}
        known = _read_reasons(output_dir / BAD_UTTS)
        reasons = {key: why for key, why in known.items() if key not in tried} | bad
        known_keys = set(keys)
        order = [*(key for key in before if key not in known_keys), *keys]
        done = {key: output_dir / "wav" / f"{key}.wav" for key in order if key not in reasons}
        write_scp(listed, {key: path for key, path in done.items() if "/" not in key and _is_whole(path)})
        rtfs = {}
        if (output_dir / "utt2rtf").exists():
            # An utterance that was decoded again stands there twice; the last counts.
            lines = read_text(output_dir / "utt2rtf").splitlines()
            rtfs = dict(line.split() for line in lines if len(line.split()) == 2)
        write_scp(output_dir / "utt2rtf", {key: rtfs[key] for key in done if key in rtfs})
        sources = read_sources(output_dir)
        write_sources(output_dir, {key: sources[key] for key in order if key in sources})
        if reasons:
            write_scp(output_dir / BAD_UTTS, reasons)
        else:
            (output_dir / BAD_UTTS).unlink(missing_ok=True)


def _read_reasons(path: Path) -> dict[str, str]:
    """Read why utterances are bad; of any text, as it is of error messages."""
    lines = read_text(path).split("\n") if path.is_file() else []
    return dict(line.split(" ", 1) for line in lines if " " in line)


def _is_whole(path: Path) -> bool:
    """Whether a WAV is there, with all its samples: not what a full disk or a copy that broke off has left."""
    if not path.is_file() or path.stat().st_size <= _WAV_HEADER:
        return False
    try:
        check_wav_is_whole(path, path.stem)
    except ValueError:
        return False
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, so that jobs that finish together don't lose each other's entries."""
    with naming(folder / ".lock"):
        (folder / "wav").mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115  (closed below)
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
