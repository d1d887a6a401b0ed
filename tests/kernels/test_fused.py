"""Compiled sums and gates against their torch twins; what happens without a compiler."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flowavenet_plugin.flow.prepared.convolution import WinogradConvolution
from flowavenet_plugin.kernels import fused
from flowavenet_plugin.kernels.scratch import Scratch

needs_compiler = pytest.mark.skipif(fused.functions() is None, reason="no C compiler (cc), or FLOWAVENET_FUSED=0")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    fused.functions.cache_clear()


def gates(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, dilation: int, rows: int) -> list[torch.Tensor]:
    """Compute gates of convolutions of 300 to 2 * 300 channels, compiled and by torch."""
    torch.manual_seed(0)
    width = 300  # more than a block of channels of fused.c, and no multiple of it
    taps = [torch.randn(width, 2 * width) / 30 for _ in range(3)]
    convolution = WinogradConvolution(taps, dilation, causal=False).to(dtype)
    padded = convolution.padded(rows)
    pre, x = torch.randn(2, padded, 2 * width).to(dtype), torch.randn(2, padded + 2 * dilation, width).to(dtype)
    outs = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(fused, "takes", lambda tensor: False)
        out = torch.full((2, rows, width), float("nan"), dtype=dtype)
        outs.append(convolution.gate(pre.clone(), x, out, Scratch()).float())
    return outs


@needs_compiler
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("rows", [3, 16, 21])
def test_gates_are_torchs(monkeypatch: pytest.MonkeyPatch, dilation: int, rows: int) -> None:
    compiled, plain = gates(monkeypatch, torch.float32, dilation, rows)
    assert compiled.std() > 0.1
    torch.testing.assert_close(compiled, plain, rtol=0, atol=3e-6)


@needs_compiler
def test_bfloat16_rounds_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, plain = gates(monkeypatch, torch.bfloat16, 1, 16)
    exact, _ = gates(monkeypatch, torch.float32, 1, 16)
    torch.testing.assert_close(compiled, plain, rtol=0, atol=0.1)
    assert (compiled - exact).square().mean() <= (plain - exact).square().mean()


@needs_compiler
def test_sigmoids_far_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pre = torch.linspace(-200, 200, 4004).view(2002, 2)[:2000].contiguous()
    y, out = torch.zeros(6, 500, 2), torch.empty(2000, 1)
    a, b = torch.sigmoid(pre).unbind(1)
    torch.testing.assert_close(fused.gate(y, pre, 1, out)[:, 0], b - 2 * a * b, rtol=0, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_front_is_a_product_of_windows(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(40), torch.randn(6, 300), torch.randn(300)
    out = fused.front(x, 2, weight, bias, torch.empty(18, 300, dtype=dtype))
    torch.testing.assert_close(out, (x.unfold(0, 6, 2) @ weight + bias).relu().to(dtype), rtol=1e-2, atol=2e-6)


@needs_compiler
def test_it_is_compiled_once_and_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWAVENET_CACHE", str(tmp_path / "cache"))
    fused.functions.cache_clear()
    assert fused.functions() is not None
    (made,) = (tmp_path / "cache").iterdir()
    before = made.stat().st_mtime_ns
    fused.functions.cache_clear()
    assert fused.functions() is not None and made.stat().st_mtime_ns == before


def test_without_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("CC", "false"), ("CC", str(tmp_path / "none")), ("FLOWAVENET_FUSED", "0")):
        monkeypatch.setenv("FLOWAVENET_CACHE", str(tmp_path))
        monkeypatch.setenv(name, value)
        fused.functions.cache_clear()
        assert fused.functions() is None and not fused.takes(torch.zeros(1))
        monkeypatch.delenv(name)


def test_the_source_compiles_without_a_warning(tmp_path: Path) -> None:
    if fused.functions() is None:
        pytest.skip("no C compiler")
    command = [
        "cc",
        *fused.FLAGS,
        "-Wall",
        "-Wextra",
        "-Werror",
        str(fused.SOURCE),
        "-o",
        str(tmp_path / "out.so"),
        "-lm",
    ]
    assert subprocess.run(command, capture_output=True).returncode == 0
