"""The compiled library: made once and whole, without a warning; what happens without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flowavenet_plugin.kernels import compiled

needs_compiler = pytest.mark.skipif(compiled.functions() is None, reason="no C compiler (cc), or FLOWAVENET_FUSED=0")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    compiled.functions.cache_clear()


@needs_compiler
def test_it_is_compiled_once_and_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWAVENET_CACHE", str(tmp_path / "cache"))
    compiled.functions.cache_clear()
    assert compiled.functions() is not None
    (made,) = (tmp_path / "cache").iterdir()
    before = made.stat().st_mtime_ns
    compiled.functions.cache_clear()
    assert compiled.functions() is not None and made.stat().st_mtime_ns == before


def test_without_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("CC", "false"), ("CC", str(tmp_path / "none")), ("FLOWAVENET_FUSED", "0")):
        monkeypatch.setenv("FLOWAVENET_CACHE", str(tmp_path))
        monkeypatch.setenv(name, value)
        compiled.functions.cache_clear()
        assert compiled.functions() is None and not compiled.takes(torch.zeros(1))
        monkeypatch.delenv(name)


@needs_compiler
@pytest.mark.parametrize("flag", ["-mno-avx512f", "-mno-avx512bf16"])
def test_older_processors_compute_the_same(tmp_path: Path, flag: str) -> None:
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor is one of them")
    tests = [str(Path(__file__).with_name(name)) for name in ("test_winograd.py", "test_products.py")]
    environment = {**os.environ, "CC": f"cc {flag}", "FLOWAVENET_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    made = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert made.returncode == 0 and "passed" in made.stdout, made.stdout


@needs_compiler
@pytest.mark.parametrize("flags", [(), ("-mno-avx512f",), ("-mno-avx512bf16",)])
def test_the_sources_compile_without_a_warning(tmp_path: Path, flags: tuple[str, ...]) -> None:
    if flags and "avx512" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX-512 to leave out")
    warnings = ("-Wall", "-Wextra", "-Werror", "-std=c11", "-Wno-unknown-pragmas")
    command = ["cc", *compiled.FLAGS, *flags, *warnings, *map(str, compiled.SOURCES), "-o", str(tmp_path / "out.so")]
    made = subprocess.run([*command, "-lm"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
