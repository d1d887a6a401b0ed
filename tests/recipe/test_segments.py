"""Stage 1 of run.sh cuts recordings by segments and takes a channel; what it is given wrongly is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import tiny_corpus
from flowavenet_plugin.data.scp import read_scp, write_scp

ROOT = Path(__file__).resolve().parents[2]
FS = tiny_corpus.FS


def stage_1(recipe: Path, *options: str) -> tuple[int, str]:
    """Extract features of the set "all", in two jobs; exit status and all that was printed."""
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    environment.pop("KALDI_ROOT", None)
    command = [str(ROOT / "run.sh"), "--recipe_dir", str(recipe), "--stage", "1", "--stop_stage", "1", "--nj", "2"]
    command += ["--train_set", "all", "--valid_set", "all", "--test_sets", "", "--n_shift", str(tiny_corpus.HOP)]
    command += ["--train_args", "--vocoder_conf x=1", "--ngpu", "0"]  # no check of a model that isn't trained here
    for key, value in tiny_corpus.FEATS_CONF.items():
        command += [] if key == "hop_length" else [f"--{key}", str(value)]
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe's folder with two recordings of two channels, of which segments make three utterances."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, FS, 2))
    data = tmp_path / "data/all"
    data.mkdir(parents=True)
    for number in range(2):
        soundfile.write(tmp_path / f"r{number}.wav", noise[number], FS, subtype="FLOAT")
    write_scp(data / "wav.scp", {f"r{number}": f"r{number}.wav" for number in range(2)})
    (data / "segments").write_text("u0 r0 0 0.5\nu1 r0 0.5 1\nu2 r1 0.25 -1\n")
    write_scp(data / "text", {f"u{number}": "words" for number in range(3)})
    return tmp_path


def test_segments_and_channel(recipe: Path) -> None:
    status, output = stage_1(recipe, "--channel", "1")
    assert status == 0, output
    dump = recipe / "dump/fbank/all"
    assert read_scp(dump / "utt2num_samples") == {"u0": "4000", "u1": "4000", "u2": "6000"}
    r0, r1 = (soundfile.read(recipe / f"r{number}.wav")[0][:, 1] for number in range(2))
    for utt, wanted in (("u0", r0[:4000]), ("u1", r0[4000:]), ("u2", r1[2000:])):
        np.testing.assert_allclose(soundfile.read(recipe / read_scp(dump / "wav.scp")[utt])[0], wanted, atol=1e-7)


@pytest.mark.parametrize(
    "options, segments, words",
    [
        (("--channel", "left"), None, "--channel is a number from 0, or mix, not 'left'"),
        ((), None, "r0.wav has 2 channels, 1 is wanted"),
        (("--channel", "mix"), "u0 r0 3 4\n", "r0.wav ends at 1 s, but the utterance starts at 3 s"),
        (("--channel", "mix"), "", "no utterances in data/all/segments"),
    ],
)
def test_what_can_not_be_stops_with_its_reason(
    recipe: Path, options: tuple[str, ...], segments: str | None, words: str
) -> None:
    if segments is not None:
        (recipe / "data/all/segments").write_text(segments)
    status, output = stage_1(recipe, *options)
    assert status == 1 and words in output, output
