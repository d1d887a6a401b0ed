"""One body of checks for every transform and the whole model: inverse, Jacobian, gradients, padding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.layout import squeeze, unsqueeze
from flowavenet_plugin.flow.plan import AFFINE, Step
from flowavenet_plugin.flow.transforms import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    FlowStep,
    GaussianSplit,
    Mixing,
)
from flowavenet_plugin.kernels.stack_shape import StackShape

BATCH, CHANNELS, COND, COLUMNS = 2, 4, 6, 8
STACK = dict(filter_size=8, n_layer=2, kernel_size=3, causal=False)


def model(**options: object) -> FloWaveNet:
    """Return a tiny model whose input is a waveform (B, 1, frames * 4)."""
    sizes = dict(n_mels=4, n_block=3, n_flow=2, n_layer=2, filter_size=8, block_per_split=2, upsample_scales=(2, 2))
    return FloWaveNet(**{**sizes, **options})


def step(mixing: bool = False) -> FlowStep:
    """Return a step of an affine coupling."""
    shape = StackShape(STACK["n_layer"], STACK["kernel_size"], STACK["causal"])
    return FlowStep(Step(AFFINE, 0, None, shape, mixing), CHANNELS, COND, **STACK)


TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "actnorm": lambda: ActNorm(CHANNELS),
    "affine_coupling": lambda: AffineCoupling(CHANNELS, COND, **STACK),
    "affine_coupling_causal": lambda: AffineCoupling(CHANNELS, COND, **{**STACK, "causal": True}),
    "additive_coupling": lambda: AdditiveCoupling(CHANNELS, COND, **STACK),
    "gaussian_split": lambda: GaussianSplit(CHANNELS, COND, **STACK),
    "flow_step": lambda: step(),
    "model": lambda: model(),
    "model_odd": lambda: model(n_flow=3),
    "model_additive": lambda: model(affine=False),
    "model_causal": lambda: model(causal=True),
    "model_single_scale": lambda: model(block_per_split=8),
    "model_even_hop": lambda: model(upsample_scales=(3, 4)),  # 12 is no multiple of 2**3: padded inside
    "model_wide_kernel": lambda: model(kernel_size=5, n_layer=1),
    "model_first_squeeze": lambda: model(first_squeeze=4, n_block=2, n_flow=[1, 2], filter_size=[8, 4]),
    "mixing": lambda: Mixing(CHANNELS),
    "flow_step_mixing": lambda: step(mixing=True),
    "model_mixing": lambda: model(mixing=True, n_flow=3, upsample_scales=(3, 4), block_per_split=[1]),
    "model_shared": lambda: model(share_stacks=True, n_flow=3),
    "model_block_cond": lambda: model(cond_channels=3, cond_filter_size=5),
    "model_block_cond_even_hop": lambda: model(cond_channels=[2, 3, 4], cond_filter_size=5, upsample_scales=(3, 4)),
}


def randomise(module: nn.Module) -> nn.Module:
    """Give every parameter an effect; the zero-initialised ones would hide errors."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        base = 1.0 if name.endswith("actnorm.scale") or name == "scale" or name.endswith("original0") else 0.0
        nn.init.zeros_(parameter)
        parameter.data.add_(base + 0.3 * noise)
    return module


def build(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a transform in double precision, an input and a conditioning."""
    torch.manual_seed(1)
    module = randomise(TRANSFORMS[name]().double()).eval()
    if isinstance(module, FloWaveNet):
        frames = 3
        return (
            module,
            torch.randn(BATCH, 1, frames * module.hop_length).double(),
            torch.randn(BATCH, 4, frames).double(),
        )
    return module, torch.randn(BATCH, CHANNELS, COLUMNS).double(), torch.randn(BATCH, COND, COLUMNS).double()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str) -> None:
    module, x, cond = build(name)
    z, logdet = module(x, cond)

    assert z.shape == x.shape and logdet.shape == (BATCH,)
    assert not torch.allclose(z, x)
    torch.testing.assert_close(module.inverse(z, cond), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(module(module.inverse(x, cond), cond)[0], x, rtol=0, atol=1e-9)

    for item in range(BATCH):  # log-determinant of each item against autograd's Jacobian, and of the inverse
        one, one_cond = x[item : item + 1], cond[item : item + 1]
        jacobian = torch.autograd.functional.jacobian(lambda v, c=one_cond: module(v, c)[0].flatten(), one)
        _, expected = torch.linalg.slogdet(jacobian.reshape(x[0].numel(), -1))
        torch.testing.assert_close(logdet[item], expected, rtol=1e-9, atol=1e-9)
        inverse = torch.autograd.functional.jacobian(
            lambda v, c=one_cond: module.inverse(v, c).flatten(), z[item : item + 1].detach()
        )
        _, expected = torch.linalg.slogdet(inverse.reshape(x[0].numel(), -1))
        torch.testing.assert_close(-logdet[item], expected, rtol=1e-9, atol=1e-9)

    (0.5 * z.square().sum() - logdet.sum()).backward()
    without = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradient_by_finite_differences(name: str) -> None:
    module, x, cond = build(name)

    def loss() -> Tensor:
        z, logdet = module(x, cond)
        return (z * torch.sin(torch.arange(z.numel()).reshape(z.shape))).sum() + logdet.sum()

    loss().backward()
    generator = torch.Generator().manual_seed(2)
    for key, parameter in module.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-6)
            above = loss()
            parameter.sub_(direction, alpha=2e-6)
            below = loss()
            parameter.add_(direction, alpha=1e-6)
        expected = ((above - below) / 2e-6).item()
        assert (parameter.grad * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name.startswith("model")])
def test_padding_is_neither_seen_nor_counted(name: str) -> None:
    module, x, cond = build(name)
    hop, frames = module.hop_length, cond.shape[2]
    lengths = torch.tensor([x.shape[2] - 1, (frames - 1) * hop - hop // 2])
    noise, logdet = module(x, cond, lengths)
    likelihood = module.log_likelihood(x, cond, lengths)
    for item, length in enumerate(lengths.tolist()):
        own = -(-length // hop)  # frames that this item has
        alone = (x[item : item + 1, :, : own * hop], cond[item : item + 1, :, :own], lengths[item : item + 1])
        alone_noise, alone_logdet = module(*alone)
        torch.testing.assert_close(noise[item, :, :length], alone_noise[0, :, :length], rtol=0, atol=1e-12)
        torch.testing.assert_close(logdet[item], alone_logdet[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(likelihood[item], module.log_likelihood(*alone)[0], rtol=0, atol=1e-12)
        assert noise[item, :, length:].abs().sum() == 0

        def valid(v: Tensor, args: tuple[Tensor, ...] = alone, n: int = length) -> Tensor:
            padded = torch.nn.functional.pad(v, (0, args[0].shape[2] - n))
            return module(padded, *args[1:])[0][..., :n].flatten()

        jacobian = torch.autograd.functional.jacobian(valid, alone[0][..., :length])
        _, expected = torch.linalg.slogdet(jacobian.reshape(length, length))
        torch.testing.assert_close(logdet[item], expected, rtol=1e-9, atol=1e-9)
    restored = module.inverse(noise, cond, lengths)
    for item, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(restored[item, :, :length], x[item, :, :length], rtol=0, atol=1e-9)


def test_squeeze() -> None:
    x = torch.arange(8.0).reshape(1, 2, 4)
    assert squeeze(x).tolist() == [[[0, 2], [1, 3], [4, 6], [5, 7]]]
    assert torch.equal(unsqueeze(squeeze(x)), x)


def test_actnorm_takes_no_scale_from_silence() -> None:
    norm = ActNorm(2).train()
    x = torch.stack([torch.full((1, 50), 0.25), torch.randn(1, 50)], dim=1)  # digital silence in the first channel
    z, logdet = norm(x)
    assert norm.scale.flatten()[0] == 1 and norm.scale.flatten()[1] != 1 and logdet.abs().max() < 100
    torch.testing.assert_close(z[:, 0], torch.zeros(1, 50))
    assert norm(x + 1e-3)[0].abs().max() < 10  # what comes later isn't blown up
