"""Convolutions over rows against torch's own, forwards and backwards, in pieces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.winograd import TILE, WinogradConvolution, transformed


def winograd(taps: torch.Tensor, dilation: int) -> WinogradConvolution:
    return WinogradConvolution(transformed(taps), dilation)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", [DirectConvolution, winograd])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # of the latter sums are compiled where they can be
def test_output_and_gradients_are_torchs(
    kind: Callable[..., DirectConvolution], dilation: int, pieces: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    close = partial(torch.testing.assert_close, **({} if dtype == torch.float64 else dict(rtol=1e-4, atol=1e-4)))
    step = 2 * TILE * dilation
    rows, scratch = pieces * step, Scratch()
    taps = torch.randn(3, 5, 4).to(dtype).requires_grad_()  # (taps, out, in)
    h = torch.randn(rows + 2 * dilation, 4).to(dtype).requires_grad_()
    expected = F.conv1d(h.t()[None], taps.permute(1, 2, 0), dilation=dilation)[0].t()
    grad = torch.randn_like(expected).contiguous()
    expected_grads = torch.autograd.grad(expected, [h, taps], grad)

    convolution = kind(taps.detach(), dilation)
    out = torch.ones(rows, 5).to(dtype)
    grad_h, grad_weight = torch.ones_like(h), torch.full_like(convolution.weight, float("nan"))
    for first in range(0, rows, step):
        convolution.add_to(out[first : first + step], h.detach(), first, scratch)
        piece = grad[first : first + step]
        convolution.backward(piece, h.detach(), first, grad_h, grad_weight, scratch)
    close(out - 1, expected.detach())
    close(grad_h - 1, expected_grads[0])
    close(convolution.taps_gradient(grad_weight), expected_grads[1])


@pytest.mark.usefixtures("way")
def test_float32_stays_as_exact_as_sums_of_such_a_length_are() -> None:
    torch.manual_seed(0)
    taps, h = torch.randn(3, 512, 256) / 28, torch.randn(1022, 256)
    errors = []
    exact = torch.zeros(1020, 512).double()
    DirectConvolution(taps.double(), 1).add_to(exact, h.double(), 0, Scratch())
    for kind in (DirectConvolution, winograd):
        out = torch.zeros(1020, 512)
        kind(taps, 1).add_to(out, h, 0, Scratch())
        errors.append(((out - exact).norm() / exact.norm()).item())
    assert errors[0] < 1e-6 and errors[1] < 2e-6
