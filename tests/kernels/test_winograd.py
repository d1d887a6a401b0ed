"""Compiled convolutions with fewer products against exact ones: gates, panels, gradients of inputs and weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flowavenet_plugin.kernels import winograd
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.scratch import Scratch

pytestmark = pytest.mark.usefixtures("instructions")


def exact_gate(h: torch.Tensor, taps: torch.Tensor, dilation: int, rest: torch.Tensor) -> torch.Tensor:
    """Return sigmoids and gate in float64, shape (rows, 3 * width)."""
    made = F.conv1d(h.double().t()[None], taps.double().permute(1, 2, 0), dilation=dilation)[0].t()
    a, b = (made[: len(rest)] + rest.double()).sigmoid().chunk(2, dim=1)
    return torch.cat([a, b, b - 2 * a * b], dim=1)


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 5e-6), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("dilation", [1, 2, 100])
@pytest.mark.parametrize("rows", [3, 21, 1500])  # of one tile, of several, of several groups
@pytest.mark.parametrize("keep", [True, False])
def test_gates_are_those_of_the_exact_convolution(
    dtype: torch.dtype, far: float, dilation: int, rows: int, keep: bool, threads: int
) -> None:
    torch.manual_seed(0)
    width, inner, tile = 50, 70, winograd.TILE * dilation  # no multiples of a panel
    tiles = -(-rows // tile)
    taps, bias = torch.randn(3, 2 * width, inner) / 15, torch.randn(2 * width).to(dtype)
    pre, h = torch.randn(rows, 2 * width).to(dtype), torch.randn(tiles * tile + 2 * dilation, inner).to(dtype)
    room = torch.empty(winograd.gate_panels_shape(2 * width, inner, dtype), dtype=dtype)
    panels = winograd.gate_panels(winograd.transformed(taps), room)
    found, out = pre.clone(), torch.full((rows - 2, width), float("nan"), dtype=dtype)
    winograd.convolve(panels, h, tiles, dilation, found, bias, out, Scratch(), keep)
    expected = exact_gate(h, taps, dilation, pre.float() + bias.float())[: rows - 2]
    torch.testing.assert_close(out.double(), expected[:, 2 * width :], rtol=0, atol=far)
    if keep:
        torch.testing.assert_close(found[: rows - 2].double(), expected[:, : 2 * width], rtol=0, atol=far)
        found[: rows - 2] = pre[: rows - 2]
    assert torch.equal(found, pre)


def test_threads_change_nothing() -> None:
    torch.manual_seed(0)
    taps, h, bias = torch.randn(3, 128, 64), torch.randn(2000 + 4, 64), torch.randn(128)
    panels = winograd.gate_panels(
        winograd.transformed(taps), torch.empty(winograd.gate_panels_shape(128, 64, torch.float32))
    )
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        out, grad = torch.empty(1990, 64), torch.zeros(2004, 64)
        winograd.convolve(panels, h, 166, 2, torch.zeros(1992, 128), bias, out, Scratch())
        convolution = winograd.WinogradConvolution(winograd.transformed(taps), 2)
        convolution.backward(torch.ones(1992, 128), h, 0, grad, torch.zeros(8, 128, 64), Scratch())
        found.append(torch.cat([out, grad]))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("dilation", [1, 2, 100])
def test_gradients_of_many_tiles_are_torchs(dilation: int, threads: int) -> None:
    torch.manual_seed(0)
    rows = winograd.TILE * dilation * (-(-1500 // (winograd.TILE * dilation)))
    taps, h = torch.randn(3, 50, 70, requires_grad=True), torch.randn(rows + 2 * dilation, 70, requires_grad=True)
    grad = torch.randn(rows, 50)
    F.conv1d(h.double().t()[None], taps.double().permute(1, 2, 0), dilation=dilation)[0].t().backward(grad.double())
    convolution = winograd.WinogradConvolution(winograd.transformed(taps.detach()), dilation)
    grad_h, grad_weight = torch.ones_like(h), torch.full_like(convolution.weight, float("nan"))
    convolution.backward(grad, h.detach(), 0, grad_h, grad_weight, Scratch())
    torch.testing.assert_close(grad_h - 1, h.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(convolution.taps_gradient(grad_weight), taps.grad, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_folded_gates(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    taps = torch.randn(3, 64, 32) / 10
    bias, found = torch.randn(64).to(dtype), []
    for compiles in (True, False):
        if not compiles:
            monkeypatch.setattr(winograd, "takes_floats", lambda *_: False)
        convolution = winograd.WinogradConvolution.folded(taps, 2, dtype)
        torch.manual_seed(1)
        pre, x = torch.randn(24, 64).to(dtype), torch.randn(28, 32).to(dtype)
        rest, out = pre.float() + bias.float(), torch.full((21, 32), float("nan"), dtype=dtype)
        exact = exact_gate(x, taps, 2, rest)[:21, 64:]
        convolution.add_gate(pre, x, 0, bias, out, Scratch(), keep=False)
        found.append(out.double())
    errors = [(made - exact).square().mean().sqrt() for made in found]
    assert errors[0] < (0.01 if dtype == torch.bfloat16 else 1e-6)
    assert errors[0] < errors[1] or dtype == torch.float32  # torch's form rounds more often


def test_bfloat16_of_an_odd_width_stays_with_torch() -> None:
    assert winograd.gate_panels_shape(8, 3, torch.bfloat16) is None
    assert winograd.gate_panels_shape(8, 3, torch.float32) is not None


def test_transformed_weights_and_their_gradients_are_autograds() -> None:
    torch.manual_seed(0)
    v, g, grad = torch.randn(5, 37, 3, requires_grad=True), torch.rand(5, 1, requires_grad=True), torch.randn(8, 5, 37)
    weight = v * (g / v.flatten(1).norm(dim=1, keepdim=True))[:, :, None]
    expected = winograd.transformed(weight.permute(2, 0, 1))
    expected.backward(grad)
    out, grad_v = torch.empty(8, 5, 37), torch.empty(5, 37, 3)
    winograd.transformed_normalised(v.detach(), g.detach(), out)
    torch.testing.assert_close(out, expected.detach())
    grad_g = winograd.normalised_gradients(grad, v.detach(), g.detach(), grad_v)
    torch.testing.assert_close(grad_v, v.grad)
    torch.testing.assert_close(grad_g, g.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_in_training_are_those_of_plain_products(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    taps, pre, h = torch.randn(3, 60, 30).to(dtype) / 10, torch.randn(24, 60).to(dtype), torch.randn(40, 30).to(dtype)
    bias, found = torch.randn(60).to(dtype), []
    for convolution in (
        winograd.WinogradConvolution(winograd.transformed(taps), 2),
        DirectConvolution(taps, 2),
    ):
        sigmoids, out = pre.clone(), torch.empty(23, 30).to(dtype)
        convolution.add_gate(sigmoids, h, 12, bias, out, Scratch())
        found.append(torch.cat([sigmoids[:23], out], dim=1))
    torch.testing.assert_close(*found, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-12)
