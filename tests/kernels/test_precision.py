"""How exact each way is: signal-to-noise ratios against float64, of a layer and of networks that speak or learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.kernels import choices
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.winograd import WinogradConvolution

from .conftest import TORCH

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
#: Least ratios (dB) of gates, without and with fewer products: compiled, and by torch, which rounds between the steps.
GATES = {F32: (134.0, 118.0, 118.0), BF16: (46.0, 42.0, 39.5), F16: (64.0, 57.5, 57.5)}
#: Of the inverse's samples.
INVERSE = {F32: 134.0, BF16: 64.0, F16: 82.5}
#: Of noise, log-determinants and gradients (of each parameter as much as of others), half precision by autocast.
TRAINING = {F32: (135.0, 135.0, 125.0), BF16: (60.0, 54.0, 36.5), F16: (77.0, 100.0, 47.0)}
SIZES = dict(n_mels=8, n_block=3, n_flow=2, n_layer=2, filter_size=32, block_per_split=2, upsample_scales=(4, 8))
FRAMES = 200


def ratio(found: Tensor, exact: Tensor) -> float:
    """Return the signal-to-noise ratio in dB."""
    noise = (found.double() - exact).square().sum().item()
    return math.inf if noise == 0 else 10 * math.log10(exact.square().sum().item() / noise)


def network(**sizes: object) -> FloWaveNet:
    torch.manual_seed(0)
    flow = FloWaveNet(**{**SIZES, **sizes}).eval()
    for parameter in flow.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return flow


@pytest.mark.parametrize("dtype", GATES)
@pytest.mark.parametrize("width", [16, 256])
def test_gates(dtype: torch.dtype, width: int, way: str) -> None:
    bounds = dict(zip((DirectConvolution, WinogradConvolution), GATES[dtype], strict=False))
    if way == TORCH:
        bounds[WinogradConvolution] = GATES[dtype][2]
    for kind, bound in bounds.items():
        torch.manual_seed(0)
        taps = torch.randn(3, 2 * width, width) / (3 * width) ** 0.5
        exact = DirectConvolution(taps.double(), 2)
        direct = kind is DirectConvolution
        given = DirectConvolution(taps.to(dtype), 2) if direct else kind.folded(taps, 2, dtype)
        pre, h = torch.randn(120, 2 * width).to(dtype), torch.randn(124, width).to(dtype)
        bias, out = torch.randn(2 * width).to(dtype), torch.empty(120, width, dtype=dtype)
        expected = torch.empty_like(out).double()
        exact.add_gate(pre.double(), h.double(), 0, bias.double(), expected, Scratch())
        given.add_gate(pre.clone(), h, 0, bias, out, Scratch(), keep=False)
        assert ratio(out, expected) > bound, kind.__name__


@torch.no_grad()
@pytest.mark.parametrize("dtype", INVERSE)
@pytest.mark.parametrize("setting", ["compiled", "libraries"])
def test_inverse(dtype: torch.dtype, setting: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choices.BFLOAT16, setting)
    flow = network()
    noise, cond = torch.randn(2, 1, FRAMES * flow.hop_length), torch.randn(2, flow.n_mels, FRAMES)
    exact = PreparedFlow(flow.double()).inverse(noise.double(), cond.double())
    for weights in (torch.float64, F32):  # folded from either
        found = PreparedFlow(flow.to(weights), dtype).inverse(noise, cond)
        assert ratio(found, exact) > INVERSE[dtype]


def trained(flow: FloWaveNet, wav: Tensor, cond: Tensor, autocast: torch.dtype | None) -> list[Tensor]:
    """Return noise, log-determinants and the gradients of all parameters, each of them as long as the others."""
    flow.zero_grad()
    with torch.autocast("cpu", autocast or BF16, enabled=autocast is not None):
        z, logdet = flow(wav, cond)
    (0.5 * z.square().sum() - logdet.sum()).backward()
    trained = [parameter for parameter in flow.parameters() if parameter.grad is not None]
    grads = [each.grad.flatten().double() for each in trained if each.numel() > 1]  # of one number the sign is left
    grads = [grad / grad.norm() if grad.norm() > 0 else grad for grad in grads]
    return [z.detach().double(), logdet.detach().double(), torch.cat(grads)]


@pytest.mark.parametrize("dtype", TRAINING)
def test_training(dtype: torch.dtype, way: str) -> None:
    flow = network()
    wav, cond = torch.randn(2, 1, FRAMES * flow.hop_length), torch.randn(2, flow.n_mels, FRAMES)
    exact = trained(flow.double(), wav.double(), cond.double(), None)
    found = trained(flow.float(), wav, cond, None if dtype == F32 else dtype)
    for bound, own, expected in zip(TRAINING[dtype], found, exact, strict=True):
        assert ratio(own, expected) > bound


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "options", [dict(), dict(block_per_split=1), dict(n_flow=3), dict(n_flow=3, block_per_split=1)]
)
def test_training_of_batches(batch: int, options: dict, way: str) -> None:
    flow = network(**{**dict(n_mels=4, n_block=2, filter_size=16, upsample_scales=(4, 4)), **options})
    wav, cond = torch.randn(batch, 1, 3200), torch.randn(batch, 4, 200)
    exact = trained(flow.double(), wav.double(), cond.double(), None)
    for own, expected in zip(trained(flow.float(), wav, cond, None), exact, strict=True):
        assert ratio(own, expected) > 95


@pytest.mark.parametrize("dtype", [torch.float64, BF16])
def test_the_default_type_of_the_process_changes_nothing(dtype: torch.dtype, way: str) -> None:
    flow = network(n_block=2, n_flow=1)
    wav, cond = torch.randn(2, 1, FRAMES * flow.hop_length), torch.randn(2, flow.n_mels, FRAMES)
    made, before = [], torch.get_default_dtype()
    for default in (before, dtype):
        torch.set_default_dtype(default)
        try:
            made.append([*trained(flow, wav, cond, None), PreparedFlow(flow, BF16).inverse(wav, cond)])
        finally:
            torch.set_default_dtype(before)
    for own, other in zip(*made, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)
