"""The synthesis benchmark: the figures that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "synthesis.py"


def run(*options: str) -> str:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=True).stdout


def test_help() -> None:
    assert all(word in run("--help") for word in ("--original", "--quick", "--long_seconds", "--threads"))


def test_figures_of_a_tiny_network() -> None:
    options = "--n_block 2 --n_flow 2 --filter_size 8 --seconds 0.2 --threads 1 --quick"
    figures = json.loads(run(*options.split()).splitlines()[-1])
    assert figures["utterance_seconds"] == pytest.approx(17 * 256 / 22050)
    for name in ("float32", "bfloat16", "hifigan", "griffin_lim"):
        assert figures[f"{name}_rtf"] == figures["seconds"][name] / figures["utterance_seconds"] > 0
    assert set(figures["peak_rss_bytes"]) == {"float32", "bfloat16"}
    (row,) = figures["precision"]
    assert row["strength"] == 0.1 and row["float32_snr"] > 100 > row["bfloat16_snr"] > 20
    assert row["float32_lsd"] < row["bfloat16_lsd"] < 3
