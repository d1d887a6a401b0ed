"""Properties of the whole network besides inverse and Jacobian."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.transforms import ActNorm


def model(**options: object) -> FloWaveNet:
    """Return a small model in double precision with every parameter set at random."""
    torch.manual_seed(0)
    sizes = dict(n_mels=4, n_block=3, n_flow=2, n_layer=2, filter_size=4, block_per_split=2, upsample_scales=(4, 4))
    network = FloWaveNet(**{**sizes, **options}).double().eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("kernel_size, n_layer, block_per_split", [(3, 2, 2), (3, 1, 8), (5, 2, 1)])
def test_nothing_beyond_the_receptive_field_matters(kernel_size: int, n_layer: int, block_per_split: int) -> None:
    network = model(kernel_size=kernel_size, n_layer=n_layer, block_per_split=block_per_split)
    reach = network.receptive_field
    frames = 2 * (2 * reach // 16 + 4)
    x, cond = torch.randn(1, 1, frames * 16).double(), torch.randn(1, 4, frames).double()
    place = x.shape[2] // 2
    changed = x.clone()
    changed[..., place] += 1.0
    for run in (lambda v: network(v, cond)[0], lambda v: network.inverse(v, cond)):
        moved = (run(changed) != run(x))[0, 0].nonzero()[:, 0]
        assert len(moved) > reach // 4  # the change does travel
        assert moved.min() >= place - reach and moved.max() <= place + reach


def test_causal_variant_never_looks_ahead() -> None:
    network = model(causal=True)
    frames = 16
    x, cond = torch.randn(1, 1, frames * 16).double(), torch.randn(1, 4, frames).double()
    place = 128  # a multiple of the column of 2**3 samples
    changed = x.clone()
    changed[..., place:] += torch.randn(x.shape[2] - place).double()
    for run in (lambda v: network(v, cond)[0], lambda v: network.inverse(v, cond)):
        assert torch.equal(run(changed)[..., :place], run(x)[..., :place])
        assert not torch.allclose(run(changed)[..., place:], run(x)[..., place:])
    assert not torch.equal(model()(changed, cond)[0][..., :place], model()(x, cond)[0][..., :place])


def test_log_likelihood_is_in_nats_per_sample() -> None:
    network = FloWaveNet(n_mels=4, n_block=2, n_flow=2, filter_size=4, upsample_scales=(2, 2)).double().eval()
    # An untrained flow is the identity up to order, so that the likelihood is that of the waveform as it is.
    x, cond = torch.randn(3, 1, 32).double(), torch.randn(3, 4, 8).double()
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).mean(dim=(1, 2))
    torch.testing.assert_close(network.log_likelihood(x, cond), expected)
    # A gain g on the audio moves the best likelihood by -log g: here through ActNorm's scale.
    network.blocks[0].steps[0].actnorm.scale.data.fill_(0.5)
    noise, logdet = network(2.0 * x, cond)
    assert logdet[0].item() == pytest.approx(32 * math.log(0.5))


@torch.no_grad()
def test_actnorm_starts_once_and_remembers() -> None:
    torch.manual_seed(0)
    x = 3.0 + 2.0 * torch.randn(4, 6, 50)
    norm = ActNorm(6)
    norm.eval()
    assert torch.equal(norm(x)[0], x) and norm.initialized == 0  # never started by evaluation
    norm.train()
    z, _ = norm(x)
    torch.testing.assert_close(z.mean(dim=(0, 2)), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(dim=(0, 2)), torch.ones(6), rtol=0, atol=1e-5)
    started = norm.loc.clone()
    norm(10 * x)
    assert torch.equal(norm.loc, started)

    resumed = ActNorm(6)
    resumed.load_state_dict(norm.state_dict())
    resumed.train()(10 * x)
    assert torch.equal(resumed.loc, started)
    resumed.load_state_dict(ActNorm(6).state_dict())  # an unstarted state: starts again
    resumed.train()(10 * x)
    assert not torch.equal(resumed.loc, started) and resumed.initialized == 1


@torch.no_grad()
def test_actnorm_start_leaves_padding_out() -> None:
    torch.manual_seed(0)
    x = 3.0 + torch.randn(2, 4, 10).double()
    mask = torch.ones_like(x)
    mask[1, :, 6:] = 0
    norm = ActNorm(4).double()
    z, _ = norm(x * mask, None, mask)
    inside = torch.cat([z[0], z[1, :, :6]], dim=1)
    torch.testing.assert_close(inside.mean(dim=1), torch.zeros(4).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(inside.std(dim=1), torch.ones(4).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "x, cond, words",
    [
        (torch.zeros(1, 1, 33), torch.zeros(1, 4, 2), ["33", "2 frames", "16"]),
        (torch.zeros(1, 1, 32), torch.zeros(1, 5, 2), ["n_mels=4", "(1, 5, 2)"]),
        (torch.zeros(1, 2, 32), torch.zeros(1, 4, 2), ["(B, 1, T)", "(1, 2, 32)"]),
    ],
)
def test_shapes_that_do_not_fit(x: Tensor, cond: Tensor, words: list[str]) -> None:
    network = model().float()
    for run in (network, network.inverse):
        with pytest.raises(ValueError) as error:
            run(x, cond)
        assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(n_block=0), ["n_block=0"]),
        (dict(n_flow=0), ["n_flow", "0"]),
        (dict(n_layer=0), ["n_layer", "0"]),
        (dict(kernel_size=2), ["kernel_size", "2"]),
        (dict(upsample_scales=(4, 0)), ["upsample_scales", "[4, 0]"]),
        (dict(first_squeeze=6), ["first_squeeze", "6"]),
        (dict(first_squeeze=1), ["first_squeeze", "1"]),
        (dict(filter_size=[8, 8]), ["filter_size", "2 values", "n_block=8"]),
        (dict(cond_channels=-1), ["cond_channels", "-1"]),
        (dict(block_per_split=[2, 8]), ["block_per_split=[2, 8]", "n_block=8"]),
    ],
)
def test_sizes_that_cannot_be(options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        FloWaveNet(**options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("scales", [(16, 16), (8, 25), (10, 20), (15, 20), (16, 32), (3, 5, 7)])
def test_upsampler_gives_whole_hops(scales: tuple[int, ...]) -> None:
    network = FloWaveNet(n_mels=3, n_block=1, n_flow=1, filter_size=2, upsample_scales=scales)
    assert network.upsampler(torch.randn(2, 3, 5)).shape == (2, 3, 5 * math.prod(scales))


def test_arithmetic_stays_float32_under_autocast() -> None:
    network = model().float().train()
    x, cond = torch.randn(2, 1, 64), torch.randn(2, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        noise, logdet = network(x, cond)
    assert noise.dtype == logdet.dtype == torch.float32
    (noise.square().sum() - logdet.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if isinstance(p, nn.Parameter))
