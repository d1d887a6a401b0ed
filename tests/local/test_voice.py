"""The corpora of the voice in the box: spoken transcripts, and sets that hold out clips of both kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local_scripts import ROOT, SETS, make_corpus

LOCAL = ROOT / "egs" / "voice" / "voc1" / "local"
#: In place of flite: a tone of 1 kHz at 16 kHz, as long as the text, and exact silence after it.
FLITE = f"""#!{sys.executable}
import sys
import numpy as np
import soundfile
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
text = open(options["-f"]).read()
if "unspeakable" in text:
    sys.exit("flite: no")
tone = 0.5 * np.sin(2 * np.pi * 1000 / 16000 * np.arange(1000 * len(text)))
soundfile.write(options["-o"], np.concatenate([tone, np.zeros(8000)]), 16000)
"""


@pytest.fixture
def flite(tmp_path: Path) -> dict[str, str]:
    """An environment whose flite is :data:`FLITE`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "flite").write_text(FLITE)
    (folder / "flite").chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def run(script: str, env: dict[str, str], folder: Path, *options: object) -> tuple[int, str]:
    """Exit status and stderr of a script of the recipe."""
    program = [sys.executable] if script.endswith(".py") else []
    command = [*program, str(LOCAL / script), *map(str, options)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stderr


def metadata(folder: Path, *lines: str) -> Path:
    """Write transcripts."""
    path = folder / "metadata.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_clips_have_the_rate_the_level_and_a_background(tmp_path: Path, flite: dict[str, str]) -> None:
    texts = metadata(tmp_path, "A-0|left out|left out", "A-1|Mr. X|Mister X was there", "A-2|no normalised text")
    options = ("--metadata", texts, "--output_dir", tmp_path / "out", "--num", 2, "--skip", 1)
    status, message = run("make_corpus.py", flite, tmp_path, *options)
    assert status == 0 and "2 clips" in message, message
    lines = (tmp_path / "out" / "metadata.csv").read_text().splitlines()
    assert lines == ["slt-A-1|Mister X was there|Mister X was there", "slt-A-2|no normalised text|no normalised text"]
    backgrounds = []
    for line, text in zip(lines, ("Mister X was there", "no normalised text"), strict=True):
        wav, fs = soundfile.read(tmp_path / "out" / "flac" / f"{line.split('|')[0]}.flac")
        spoken = round(1000 * len(text) / 16000 * 22050)
        assert fs == 22050 and abs(len(wav) - spoken - 11025) <= 2
        assert np.abs(wav[1000 : spoken - 1000]).max() == pytest.approx(0.25, rel=0.03)  # 6 dB below flite's
        backgrounds.append(wav[spoken + 1000 :])
        assert backgrounds[-1].std() == pytest.approx(0.0005, rel=0.05)
        spectrum = np.abs(np.fft.rfft(wav[1000 : 1000 + 8192] * np.hanning(8192)))
        assert spectrum[round(8500 / 22050 * 8192) :].max() < 1e-3 * spectrum.max()  # no images above 8 kHz
    assert not np.allclose(*(part[:5000] for part in backgrounds))
    before = [path.read_bytes() for path in sorted((tmp_path / "out" / "flac").iterdir())]
    assert run("make_corpus.py", flite, tmp_path, *options)[0] == 0
    (tmp_path / "out" / "flac" / "slt-A-1.flac").unlink()  # what was lost is made again, the same
    assert run("make_corpus.py", flite, tmp_path, *options)[0] == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "out" / "flac").iterdir())] == before


@pytest.mark.parametrize(
    "lines, num, words",
    [
        (["A-1|x|fine"], 2, ["1 lines", "2"]),
        (["A-1"], 1, ["metadata.csv:1", "A-1"]),
        (["A-1|x|unspeakable"], 1, ["flite failed", "flite: no", "unspeakable"]),
    ],
)
def test_transcripts_that_cannot_be_spoken(
    tmp_path: Path, flite: dict[str, str], lines: list[str], num: int, words: list[str]
) -> None:
    options = ("--metadata", metadata(tmp_path, *lines), "--output_dir", tmp_path / "out", "--num", num)
    status, message = run("make_corpus.py", flite, tmp_path, *options)
    assert status == 1 and all(word in message for word in words), message
    assert not (tmp_path / "out" / "metadata.csv").exists()


def test_without_flite_it_says_what_to_install(tmp_path: Path, flite: dict[str, str]) -> None:
    env = {**flite, "PATH": str(tmp_path)}
    options = ("--metadata", metadata(tmp_path, "A-1|x|x"), "--output_dir", tmp_path / "out")
    status, message = run("make_corpus.py", env, tmp_path, *options)
    assert status == 1 and "apt-get install flite" in message


def test_sets_hold_out_clips_of_both_kinds(tmp_path: Path, flite: dict[str, str]) -> None:
    real = make_corpus(tmp_path / "real", 6)
    texts = metadata(tmp_path, *(f"T-{i:02d}|text|some text" for i in range(10)))
    options = ("--metadata", texts, "--num_clips", 8, "--skip", 2, "--real_share", 0.5, "--num_dev", 1, "--num_eval", 2)
    status, message = run("data.sh", flite, tmp_path, "--db_root", real, *options)
    assert status == 0, message
    lists = {name: (tmp_path / "data" / name / "wav.scp").read_text().splitlines() for name in SETS}
    ids = {name: [line.split()[0] for line in lines] for name, lines in lists.items()}
    assert ids["dev"] == ["LJ001-0003", "MINI-0021", "MINI-0022", "MINI-0023"]
    assert ids["eval1"] == ["LJ001-0004", "LJ001-0005", "MINI-0024", "MINI-0025", "MINI-0026"]
    repeated = [utt for utt in ids["tr_no_dev"] if utt.startswith("LJ")]
    # 8 spoken and 20 bundled clips; so that real ones are half, each of the three is there 28 / 3 = 9 times.
    assert len(ids["tr_no_dev"]) - len(repeated) == 28 and len(repeated) == 27
    assert {utt.rsplit("-", 1)[0] for utt in repeated} == {"LJ001-0000", "LJ001-0001", "LJ001-0002"}
    status, message = run("data.sh", flite, tmp_path, "--db_root", real, *options, "--real_share", "1.0")
    assert status == 1 and "real_share" in message and "1.0" in message


def test_missing_corpora_are_named(tmp_path: Path, flite: dict[str, str]) -> None:
    env = {key: value for key, value in flite.items() if key != "LJSPEECH"}
    status, message = run("data.sh", env, tmp_path)
    assert status == 1 and "--metadata" in message
    status, message = run("data.sh", env, tmp_path, "--metadata", metadata(tmp_path, "A|b|c"))
    assert status == 1 and "--real_clips false" in message
