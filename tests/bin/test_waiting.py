"""Threads of commands sleep soon beside other work, and spin on a free machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowavenet_plugin.bin import waiting
from flowavenet_plugin.bin.waiting import TURNS, choose_waiting

IDLE, BUSY = "cpu  10 0 10 {idle} 5 0 0 0 0 0\ncpu0 1 2 3\n", "cpu  {busy} 0 10 20 5 0 0 0 0 0\ncpu0 1 2 3\n"


def environment_after(tmp_path: Path, texts: tuple[str, str], monkeypatch: pytest.MonkeyPatch, **own: str) -> dict:
    """Return the environment when the system's counters went from one text to the other meanwhile."""
    stat = tmp_path / "stat"
    stat.write_text(texts[0])
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: stat.write_text(texts[1]))
    environment = dict(own)
    choose_waiting(environment, stat)
    return environment


def test_other_work_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = IDLE.format(idle=100), IDLE.format(idle=120)
    busy = BUSY.format(busy=100), BUSY.format(busy=120)
    assert environment_after(tmp_path, idle, monkeypatch) == {}
    assert environment_after(tmp_path, busy, monkeypatch) == {"GOMP_SPINCOUNT": str(TURNS)}
    assert environment_after(tmp_path, (busy[0], busy[0]), monkeypatch) == {}  # no time has passed
    for own in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}, {"OMP_NUM_THREADS": "1"}):
        assert environment_after(tmp_path, busy, monkeypatch, **own) == own
    environment: dict[str, str] = {}
    choose_waiting(environment, tmp_path / "none")
    assert environment == {}


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system doesn't count so")
def test_commands_ask_before_torch_is_there() -> None:
    """Beside processes that do nothing but work, one for each processor."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    code = "import os; import flowavenet_plugin.bin; print(os.environ.get('GOMP_SPINCOUNT'))"
    try:
        said = [
            subprocess.run([sys.executable, "-c", start + code], env=env, stdout=subprocess.PIPE, check=True, text=True)
            for start in ("", "import torch; ")
        ]
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert [done.stdout.split()[-1] for done in said] == [str(TURNS), "None"]
