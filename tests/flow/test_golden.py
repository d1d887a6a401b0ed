"""The same function as the original code for the same weights: every stored number."""

from __future__ import annotations

import math

import pytest
import torch

import golden_weights
from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.vocoder.original_weights import import_state_dict
from plain_flows import by_modules

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def relative(ours: torch.Tensor, stored: torch.Tensor) -> float:
    """Return the largest error relative to the largest stored value."""
    return ((ours.double() - stored.double()).abs().max() / stored.double().abs().max()).item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", golden_weights.NAMES)
@torch.no_grad()
def test_every_golden_number(name: str, dtype: torch.dtype) -> None:
    golden = golden_weights.load(name)
    imported = import_state_dict(golden.state_dict(dtype))
    model = FloWaveNet(**imported.sizes).to(dtype).eval()
    model.load_state_dict(imported.state_dict)
    x, cond, noise = (golden.tensor(key, dtype) for key in ("x", "c", "z"))
    samples = x.shape[2]

    split_logdets = []  # the original counts these in log_p, as they are the scales of the priors
    for block in model.blocks:
        if block.split is not None:
            block.split.register_forward_hook(lambda module, args, output: split_logdets.append(output[1]))
    latent, logdet = by_modules(model, x, cond, None)
    split_logdet = sum(split_logdets, start=x.new_zeros(1))
    gaussian = -0.5 * latent.square().sum() - 0.5 * math.log(2 * math.pi) * samples

    tolerance = TOLERANCE[dtype]
    assert relative((logdet - split_logdet) / samples, golden.tensor("logdet")) < tolerance
    assert relative((gaussian + split_logdet) / samples, golden.tensor("log_p")) < tolerance
    assert relative(model.inverse(noise, cond), golden.tensor("y")) < tolerance
    assert relative(model.upsampler(cond)[:, :, :512], golden.tensor("c_up_head")) < tolerance
    assert relative(model.log_likelihood(x, cond), golden.tensor("log_p") + golden.tensor("logdet")) < tolerance
    assert relative(model.inverse(latent, cond), x) < tolerance


@pytest.mark.parametrize("name", golden_weights.NAMES)
def test_parameters_are_the_originals_less_those_without_gradient(name: str) -> None:
    golden = golden_weights.load(name)
    shapes = dict(zip(golden.names, golden.shapes, strict=True))
    imported = import_state_dict({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    with torch.device("meta"):
        ours = sum(parameter.numel() for parameter in FloWaveNet(**imported.sizes).parameters())
    dropped = sum(math.prod(shapes[key]) for key in imported.dropped)
    assert all("res_conv" in key for key in imported.dropped)
    assert set(imported.mapped) | set(imported.dropped) == set(shapes)
    assert ours + dropped == sum(math.prod(shape) for shape in shapes.values()) == golden.number("n_params")
    if name == "paper":
        assert len(shapes) == 2307 and len(imported.dropped) == 147
