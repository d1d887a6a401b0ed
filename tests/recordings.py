"""What the tests of extract_feats and merge_dump share: recordings, running the commands, looking at the result."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from flowavenet_plugin.bin import extract_feats
from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.data.scp import open_feats, read_audio, read_scp, write_scp

FS = 16000
LISTS = ("feats.scp", "wav.scp", "utt2num_samples", "utt2num_frames")


def write_wav(path: Path, samples: int = 4000, fs: int = FS, scale: float = 0.5, seed: int = 0) -> Path:
    """A recording of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-1, 1, samples)
    soundfile.write(path, scale * noise, fs, subtype="PCM_16")
    return path


def make_recordings(tmp_path: Path) -> dict[str, Path]:
    """Four good recordings, listed in wav.scp."""
    wavs = {f"utt{i}": write_wav(tmp_path / f"in/utt{i}.wav", 4000 + 100 * i, seed=i) for i in range(4)}
    write_scp(tmp_path / "wav.scp", wavs)
    return wavs


def run(main: Callable[[list[str]], None], *options: object) -> str:
    """The message with which a command failed; empty if it didn't. A string in SystemExit means exit status 1."""
    try:
        main([str(option) for option in options])
    except SystemExit as stop:
        assert isinstance(stop.code, str) or stop.code == 2
        return str(stop.code)
    return ""


def assert_matches(pattern: str, message: str) -> None:
    """Search, and show the message if it isn't there."""
    assert re.search(pattern, message), message


def run_extract(tmp_path: Path, *options: object, scp: str = "wav.scp", out: str = "out") -> str:
    """Extract features of a list in the folder, here and now; the message, as of run."""
    conf = ("--feats_extract_conf", f"fs={FS}", "--feats_extract_conf", "hop_length=200")
    files = ("--wav_scp", tmp_path / scp, "--output_dir", tmp_path / out)
    return run(extract_feats.main, *files, "--log_level", "ERROR", *conf, *options)


def command(tmp_path: Path, *options: object) -> list[str]:
    """The same in a process of its own."""
    conf = [f"--feats_extract_conf=fs={FS}", "--feats_extract_conf=hop_length=200"]
    files = [f"--wav_scp={tmp_path / 'wav.scp'}", f"--output_dir={tmp_path / 'out'}"]
    return [sys.executable, "-m", "flowavenet_plugin.bin.extract_feats", *files, *conf, *map(str, options)]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file but the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def check_result(folder: Path, wanted: dict[str, Path]) -> None:
    """The folder holds exactly the features of these recordings, and its lists agree."""
    feats = open_feats(folder / "feats.scp")
    assert list(feats) == list(wanted)
    fbank = build_feats_extract("fbank", {"fs": FS, "hop_length": 200})
    for utt, path in wanted.items():
        np.testing.assert_array_equal(feats[utt], extract(fbank, *read_audio(path, utt), utt)[1])
    frames = np.concatenate([feats[utt] for utt in wanted]).astype(np.float64)
    with np.load(folder / "feats_stats.npz") as stats:
        assert stats["count"] == len(frames)
        np.testing.assert_allclose(stats["sum"], frames.sum(0))
        np.testing.assert_allclose(stats["sum_square"], (frames**2).sum(0))
    lengths = {utt: str(soundfile.info(path).frames) for utt, path in wanted.items()}
    assert read_scp(folder / "utt2num_samples") == lengths
    assert read_scp(folder / "utt2num_frames") == {utt: str(len(feats[utt])) for utt in wanted}
    assert read_scp(folder / "wav.scp") == {utt: str(path) for utt, path in wanted.items()}
    assert not list(folder.glob(".*tmp*"))
