"""What can't be written is named, with why; nothing half-written stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flowavenet_plugin.data.decoded import write_wav
from flowavenet_plugin.data.partial import whole_file
from flowavenet_plugin.data.scp import ArkWriter, atomic_open, write_scp
from flowavenet_plugin.data.stats import write_stats

#: In a process that may write 1000 bytes to a file: as on a full disk, less is written than asked for.
FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import test_writing
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for name, write in test_writing.WRITERS.items():
    try:
        write(Path({folder!r}))
    except OSError as error:
        print(error)
"""
WAV, FEATS = np.zeros(4000, np.float32), np.zeros((400, 40), np.float32)


def _ark(folder: Path) -> None:
    with ArkWriter(folder / "feats.ark", folder / "feats.scp") as writer:
        writer["a"] = FEATS


WRITERS = {
    "a.wav": lambda folder: write_wav(folder / "a.wav", WAV, 8000),
    "float.wav": lambda folder: write_wav(folder / "float.wav", WAV, 8000, subtype="FLOAT"),
    "feats.ark": _ark,
    "list": lambda folder: write_scp(folder / "list", {f"utterance{i}": i for i in range(400)}),
    "stats.npz": lambda folder: write_stats(folder / "stats.npz", 1, np.zeros(400), np.zeros(400)),
}


def test_a_full_disk(tmp_path: Path) -> None:
    code = FULL.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = [f"cannot write {tmp_path}/{name}: File too large" for name in WRITERS]
    assert done.stdout.splitlines() == expected, done.stdout + done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.wav", "list"])
def test_a_name_that_is_too_long_and_a_file_for_a_folder(tmp_path: Path, name: str) -> None:
    write = {"a.wav": lambda path: write_wav(path, WAV, 8000), "list": lambda path: write_scp(path, {"a": 1})}[name]
    with pytest.raises(OSError, match=f"^cannot write {tmp_path}/{'x' * 300}: File name too long$"):
        write(tmp_path / ("x" * 300))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="^cannot write .*/file/name: (Not a directory|File exists)$"):
        write(tmp_path / "file/name")


def test_errors_of_other_files_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), atomic_open(tmp_path / "list"):
        (tmp_path / "other").read_text()
    with pytest.raises(RuntimeError, match="^stop$"), whole_file(tmp_path / "list"):
        raise RuntimeError("stop")
    assert os.listdir(tmp_path) == []
