"""The benchmark of the ways to multiply on a processor: what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "processors.py"


def test_it_names_the_processor_and_measures_each_way() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--seconds", "0.02", "--threads", "1"]
    environment = {**os.environ, "FLOWAVENET_BFLOAT16": "libraries"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    figures = json.loads(last)
    assert first.startswith(f"processor {figures['processor']}") and figures["bfloat16"] == "libraries"
    ways = {"float32", "bfloat16_compiled", "bfloat16_libraries"}
    assert set(figures["rtf"]) == {"flowavenet_small"} and set(figures["rtf"]["flowavenet_small"]) == ways
    assert all(factor > 0 for factor in figures["rtf"]["flowavenet_small"].values())
