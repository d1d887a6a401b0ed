"""The benchmarks of learning and loading: command lines, and the parts that figures rest on."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("loader", "same_learning", "dequantization", "bfloat16")


@pytest.fixture
def same_learning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script as Python runs it: with its folder on the path."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("same_learning")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Return a folder of five noisy tones in 16-bit wav files."""
    rng = np.random.default_rng(0)
    for i in range(5):
        tone = 0.3 * np.sin(0.05 * (i + 1) * np.arange(6000)) + 0.02 * rng.standard_normal(6000)
        soundfile.write(tmp_path / f"{i}.wav", tone, 22050, subtype="PCM_16")
    return tmp_path


def figures(script: str, clips: Path, *options: str) -> dict[str, Any]:
    """Run a benchmark of two seeds, twelve steps each, and read its last line."""
    (clips / "train.yaml").write_text("vocoder_conf: {n_block: 2, n_flow: 1, filter_size: 4}")
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--data", str(clips), "--steps", "12"]
    command += [
        "--config",
        str(clips / "train.yaml"),
        "--batch_size",
        "2",
        "--frames",
        "4",
        "--device",
        "cpu",
        *options,
    ]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def test_figures_of_bfloat16(clips: Path) -> None:
    found = figures("bfloat16", clips)
    assert found["steps"] == 12 and found["clips"] == 4 and found["held_out"] == 1 and found["seeds"] == 2
    # The same start and segments, so that rounding is all that differs, and less of it where nothing was rounded.
    assert found["curves_apart_nudged"] <= found["curves_apart_bfloat16"]
    assert 0 < found["curves_apart_bfloat16"] < found["curves_apart_seeds"]
    gains = np.subtract(found["held_out_bfloat16"], found["held_out_float32"])
    assert found["held_out_gain"] == pytest.approx(gains.mean()) and gains.any() and np.abs(gains).max() < 0.05


def test_figures_of_dequantisation(clips: Path) -> None:
    found = figures("dequantization", clips, "--quick")
    assert found["seeds"] == 1 and found["gain"] == found["gains"][0] != 0
    assert found["gain"] == found["log_likelihood_with"] - found["log_likelihood_without"]


def test_curves_are_compared_by_their_smoothed_second_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    bfloat16 = importlib.import_module("bfloat16")
    one = [0.0] * 40
    other = [9.0] * 10 + [0.5, -0.5] * 15  # far apart at first; later noise that the mean over four steps takes out
    assert bfloat16.apart(one, other) == pytest.approx(0.0)
    assert bfloat16.apart(one, [value + 1 for value in other]) == pytest.approx(1.0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_quick(script: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--quick" in text


def test_crops_are_the_same_for_a_seed_and_fit(same_learning: ModuleType) -> None:
    clip = (np.arange(40 * 256, dtype=np.float32), np.repeat(np.arange(40, dtype=np.float32)[:, None], 80, axis=1))
    one, other = (same_learning.crops([clip], 3, 2, torch.float64) for _ in range(2))
    x, cond = next(one)
    assert x.shape == (3, 1, 512) and cond.shape == (3, 80, 2) and x.dtype == torch.float64
    assert torch.equal(x[:, 0, ::256], cond[:, 0] * 256)
    assert torch.equal(next(other)[0], x) and not torch.equal(next(one)[0], x)


def test_differences_of_curves(same_learning: ModuleType) -> None:
    result = same_learning.summarise([1.0, 0.5, 0.25], [1.0, 0.75, 0.0])
    assert result["largest_difference"] == 0.25 and result["mean_difference"] == pytest.approx(0.5 / 3)
    assert result["mean_loss_of_last_fifth"] == 0.25 and result["mean_loss_of_last_fifth_original"] == 0.0
    assert same_learning.draw([1.0, 0.5], [1.0, 0.6]).axes[0].get_ylabel() == "loss in nats/sample"


def test_loader_prints_its_figures_as_json(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("vocoder_conf: {n_block: 2, n_flow: 1, filter_size: 4}\nsegment_length: 2048\nuse_amp: false\n")
    command = [sys.executable, str(ROOT / "benchmarks/loader.py"), "--config", str(config), "--num_workers", "1"]
    command += ["--clips", "6", "--seconds", "0.5", "--batches", "4", "--rounds", "1", "--batch_size", "2"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(run.stdout.splitlines()[-1])
    for way in ("in_process", "in_process_cached", "workers", "workers_cached"):
        assert result[f"{way}_ratio"] == pytest.approx(result[f"{way}_seconds"] / result["step_seconds"])
    assert result["segment_length"] == 2048 and result["batch_size"] == 2
