"""The training benchmark: its counting, and the figures that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = util.spec_from_file_location("training_benchmark", FOLDER / "training.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*options: str) -> str:
    command = [sys.executable, str(FOLDER / "training.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_help() -> None:
    text = run("--help")
    assert all(word in text for word in ("--original", "--quick", "--crop", "--batch", "--threads"))


def test_saved_bytes_counts_each_storage_once_and_no_parameters(training: ModuleType) -> None:
    model = nn.Linear(10, 20)
    x = torch.randn(30, 10)

    def loss() -> torch.Tensor:
        hidden = model(x).exp()  # keeps its result, 30 * 20; linear keeps x, 30 * 10
        return (hidden * hidden.view(20, 30).t().sin()).sum()  # sin keeps hidden's storage; the product both factors

    # x, hidden and the sine, 4 bytes each
    assert training.saved_bytes(model, loss) == 4 * (300 + 600 + 600)
    assert model.weight.grad is None


def test_figures_of_a_tiny_network() -> None:
    last = run(
        *("--n_block 2 --n_flow 2 --filter_size 8 --crop 512 --steps 2 --threads 1 --device cpu --quick".split())
    ).splitlines()[-1]
    figures = json.loads(last)
    sides = figures["sides"]
    assert set(sides) == {"plain", "reversible"}
    assert figures["reversible_time_ratio"] == sides["reversible"]["seconds"] / sides["plain"]["seconds"]
    for side in sides.values():
        assert side["samples_per_s"] == pytest.approx(512 / side["seconds"])
        assert side["peak_rss_bytes"] > side["saved_bytes"] > 0
    assert sides["reversible"]["saved_bytes"] < sides["plain"]["saved_bytes"]
    assert sides["reversible"]["loss"] == pytest.approx(sides["plain"]["loss"], rel=1e-5)
    assert figures["quick"] is True and figures["crop"] == 512
