"""The benchmarks of learning and loading: command lines, and the parts that figures rest on."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("loader", "same_learning", "dequantization")


@pytest.fixture
def same_learning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script as Python runs it: with its folder on the path."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("same_learning")


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
