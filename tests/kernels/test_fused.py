"""Compiled sums and gates against their torch twins; what happens without a compiler."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flowavenet_plugin.flow.prepared.convolution import WinogradConvolution
from flowavenet_plugin.kernels import convolution as kernel
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
    bias = torch.randn(2 * width).to(dtype)
    pre, x = torch.randn(2, padded, 2 * width).to(dtype), torch.randn(2, padded + 2 * dilation, width).to(dtype)
    outs = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(fused, "takes", lambda tensor: False)
        out = torch.full((2, rows, width), float("nan"), dtype=dtype)
        outs.append(convolution.gate(pre.clone(), x, bias, out, Scratch()).float())
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
    torch.testing.assert_close(fused.gate(y, pre, torch.zeros(2), 1, out)[:, 0], b - 2 * a * b, rtol=0, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 3e-6), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("winograd", [True, False])
def test_gates_of_training_keep_their_sigmoids(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, far: float, winograd: bool
) -> None:
    torch.manual_seed(0)
    taps, pre, h, bias = torch.randn(3, 600, 300) / 30, torch.randn(20, 600), torch.randn(44, 300), torch.randn(600)
    weight = kernel.WinogradConvolution.transformed(taps.to(dtype))
    convolution = kernel.WinogradConvolution(weight, 2) if winograd else kernel.DirectConvolution(taps.to(dtype), 2)
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(fused, "takes", lambda tensor: False)
        sigmoids, out = pre.to(dtype, copy=True), torch.full((19, 300), float("nan"), dtype=dtype)
        convolution.add_gate(sigmoids[:16], h.to(dtype), 8, bias.to(dtype), out[:15], Scratch())
        found.append(torch.cat([sigmoids[:15].float(), out[:15].float()], dim=1))
        assert torch.equal(sigmoids[16:], pre.to(dtype)[16:]) and out[15:].isnan().all()
    torch.testing.assert_close(*found, rtol=0, atol=far)


@needs_compiler
@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("rows", [1, 21])
def test_gradients_of_gates_are_autograds(dtype: torch.dtype, far: float, rows: int) -> None:
    torch.manual_seed(0)
    pre, grad = torch.randn(rows, 2 * 300, requires_grad=True), torch.randn(rows, 300).to(dtype)
    a, b = pre.sigmoid().chunk(2, dim=1)
    u = b - 2 * a * b
    u.backward(grad.float())
    sigmoids, out = torch.cat([a, b], dim=1).detach().to(dtype), torch.full((rows + 1, 600), 7.0, dtype=dtype)
    sums = fused.gate_gradients(grad, u.detach().to(dtype), sigmoids, out)
    torch.testing.assert_close(out[:rows].float(), pre.grad, rtol=far, atol=far)
    torch.testing.assert_close(sums, pre.grad.sum(dim=0), rtol=far, atol=10 * far)
    assert (out[rows:] == 7).all()


@needs_compiler
def test_transformed_weights_and_their_gradients_are_autograds() -> None:
    torch.manual_seed(0)
    v, g, grad = torch.randn(5, 37, 3, requires_grad=True), torch.rand(5, 1, requires_grad=True), torch.randn(6, 5, 37)
    weight = v * (g / v.flatten(1).norm(dim=1, keepdim=True))[:, :, None]
    g0, g1, g2 = weight.unbind(2)
    near, far, odd = g0 + g2, g0 + 4 * g2, 2 * g1
    parts = [g0 / 4, -(near + g1) / 6, -(near - g1) / 6, (far + odd) / 24, (far - odd) / 24, g2]
    expected = torch.stack(parts)
    expected.backward(grad)
    out, grad_v = torch.empty(6, 5, 37), torch.empty(5, 37, 3)
    fused.winograd_weights(v.detach(), g.detach(), out)
    torch.testing.assert_close(out, expected.detach())
    torch.testing.assert_close(kernel.WinogradConvolution.transformed(weight.detach().permute(2, 0, 1)), out)
    grad_g = fused.winograd_weight_gradients(grad, v.detach(), g.detach(), grad_v)
    torch.testing.assert_close(grad_v, v.grad)
    torch.testing.assert_close(grad_g, g.grad)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_biases_and_relus(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, bias = torch.randn(2, 5, 37).to(dtype), torch.randn(37).to(dtype)
    expected = (x.float() + bias.float()).relu().to(dtype)
    assert torch.equal(fused.add_relu(x, bias), expected)


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
