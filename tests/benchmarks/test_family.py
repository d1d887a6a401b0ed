"""The family's benchmark: its rows build, and the figures that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "family.py"
sys.path.insert(0, str(SCRIPT.parent))

import family  # noqa: E402
import family_rows  # noqa: E402

from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder  # noqa: E402


def run(*options: str) -> str:
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help() -> None:
    assert all(word in run("--help") for word in ("--quick", "--rows", "--results", "flowavenet_small"))


@pytest.mark.parametrize("name", family_rows.names())
def test_every_row_builds(name: str) -> None:
    with torch.device("meta"):
        assert FloWaveNetVocoder(22050, 256, 80, **family_rows.options(name)).hop_length == 256


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(ValueError, match="'smal'.*flowavenet_small"):
        family_rows.options("smal")


def test_targets_that_need_no_training() -> None:
    small, base, paper = (family.count(name) for name in ("flowavenet_small", "flowavenet_base", "flowavenet"))
    assert small["parameters"] <= 8e6
    assert base["gflop_per_second"] <= paper["gflop_per_second"] / 10
    # Its own sizes say what the paper's network costs, but for what no sample passes through.
    assert paper["gflop_per_second"] == pytest.approx(388 - 17, rel=0.01)


def test_a_row_is_measured_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(5):
        soundfile.write(tmp_path / f"clip{i}.wav", 0.1 * generator.standard_normal(8192), 22050, subtype="PCM_16")
    results = tmp_path / "rows.json"
    options = f"--rows flowavenet_small --data {tmp_path} --synthetic {tmp_path} --results {results} --steps 2".split()
    sizes = "--frames 4 --judged_frames 8 --repeats 1 --seconds 0.1 --threads 1".split()
    out = run(*options, *sizes, "--picture", str(tmp_path / "family.png"))
    row = json.loads(out.splitlines()[-1])["flowavenet_small"]
    assert json.loads(results.read_text()) == {"flowavenet_small": row}
    assert row["trained_samples"] == 2 * 2 * 4 * 256
    assert row["rtf"] > 0 and row["hifigan_rtf"] > 0 and row["samples_per_cpu_second"] > 0
    assert row["log_likelihood"] == (row["log_likelihood_real"] + row["log_likelihood_synthetic"]) / 2
    assert row["log_likelihood_real"] == row["log_likelihood_synthetic"]  # the same clips here
    assert (tmp_path / "family.png").stat().st_size > 1000
    again = json.loads(run(*options, *sizes).splitlines()[-1])["flowavenet_small"]
    assert again == row
