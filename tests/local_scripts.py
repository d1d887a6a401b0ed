"""What the tests of local/ share: running its scripts, and a small corpus in LJSpeech's layout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETS = ("tr_no_dev", "dev", "eval1")
FILES = ("wav.scp", "text", "utt2spk", "spk2utt")


def run(
    folder: Path, *options: object, ljspeech: str | None = None, script: str = "data.sh", of: str = "local"
) -> tuple[int, str]:
    """Exit status and stderr of a script in local/, or a recipe's, run in a folder."""
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ("LJSPEECH", "KERSTIN") and not key.lower().endswith("_proxy")
    }
    if ljspeech is not None:
        env["LJSPEECH"] = ljspeech
    # ${python} is split into words, as in ESPnet's scripts, so that its folder goes into PATH: it may hold a space.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    program = [str(ROOT / of / "data.sh"), "--python", Path(sys.executable).name]
    if script != "data.sh":
        program, env["PYTHONPATH"] = [sys.executable, str(ROOT / of / script)], str(ROOT)
    program += map(str, options)
    done = subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def assert_matches(pattern: str, message: str) -> None:
    """Search, and show the message if it isn't there."""
    assert re.search(pattern, message), message


def sizes(num_dev: int = 1, num_eval: int = 2) -> tuple[object, ...]:
    """Options for the sizes of the sets."""
    return "--num_dev", num_dev, "--num_eval", num_eval


def make_corpus(folder: Path, number: int = 6) -> Path:
    """A corpus in LJSpeech's layout."""
    (folder / "wavs").mkdir(parents=True)
    for i in range(number):
        with wave.open(str(folder / f"wavs/LJ001-000{i}.wav"), "wb") as file:
            file.setparams((1, 2, 22050, 0, "NONE", ""))
            file.writeframes(os.urandom(4000))
    lines = [f'LJ001-000{i}|"Mr. {i}|Mister  {i} said' for i in range(number)]
    (folder / "metadata.csv").write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")
    return folder


def lists(folder: Path) -> dict[str, str]:
    """Content of all files of the sets."""
    return {f"{name}/{file}": (folder / "data" / name / file).read_text() for name in SETS for file in FILES}
