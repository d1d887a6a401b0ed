"""Random networks, batches, lengths and layouts of memory, against the same in float64.

Each way to compute must agree: both directions with and without kept activations (values and gradients), synthesis with
folded weights at once and in pieces. `FLOWAVENET_RANDOM=500 pytest tests/flow/test_random_networks.py` tries more.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow

COUNT = int(os.environ.get("FLOWAVENET_RANDOM", "24"))
#: Largest errors, of values that are about 1: float32 has 1e-7, and what the networks add up to some hundred of it.
VALUES, GRADIENTS = 2e-4, 2e-3


def draw_sizes(rng: random.Random) -> dict[str, object]:
    """Return a network's options."""
    n_block = rng.randint(1, 3)

    def each(low: int, high: int) -> int | list[int]:
        return rng.choice([rng.randint(low, high), [rng.randint(low, high) for _ in range(n_block)]])

    sizes = dict(
        n_mels=rng.randint(1, 7),
        n_block=n_block,
        n_flow=each(1, 4),
        n_layer=each(1, 3),
        filter_size=rng.choice([each(1, 20), each(30, 70)]),
        kernel_size=rng.choice([3, 3, 3, 1, 5]),
        block_per_split=rng.choice([1, 2, n_block, sorted(rng.sample(range(1, n_block), rng.randint(0, n_block - 1)))]),
        affine=rng.random() < 0.8,
        causal=rng.random() < 0.3,
        upsample_scales=rng.choice([(2, 4), (3, 2), (4, 4), (16, 16), (5,)]),
        first_squeeze=rng.choice([2, 2, 4, 8]),
        mixing=rng.random() < 0.3,
        share_stacks=rng.random() < 0.2,
    )
    if rng.random() < 0.4:
        sizes.update(
            cond_channels=rng.randint(1, 9), cond_filter_size=rng.randint(1, 9), cond_n_layer=rng.randint(0, 2)
        )
    if sizes["share_stacks"]:  # the stacks of a block have one shape only where conditioning halves have
        sizes["n_mels"] = 2 * sizes["n_mels"]
    return sizes


def as_laid_out(x: Tensor, layout: int) -> Tensor:
    """Return the same values in another layout: gaps between items or values, other orders, a shifted start."""
    if layout == 1:
        return torch.stack([x, torch.full_like(x, 9.0)], dim=-1)[..., 0]
    if layout == 2:
        return x.transpose(0, 2).contiguous().transpose(0, 2)
    if layout == 3:
        return torch.cat([torch.full_like(x[:, :, :1], 9.0), x], dim=2)[:, :, 1:]
    if layout == 4:
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x


def gradients(network: FloWaveNet, x: Tensor, cond: Tensor, lengths: Tensor | None, reversible: bool) -> list[Tensor]:
    """Return noise, log-determinant, and gradients of a loss by input, conditioning and all parameters."""
    network.reversible = reversible
    network.zero_grad()
    x, cond = x.detach().requires_grad_(), cond.detach().requires_grad_()
    noise, logdet = network(x, cond, lengths)
    weights = torch.linspace(0.5, 1.5, noise.numel(), dtype=noise.dtype).view_as(noise)
    (0.5 * (weights * noise.square()).sum() - logdet.sum()).backward()
    inside = torch.ones_like(x[:, 0]) if lengths is None else torch.arange(x.shape[2]) < lengths[:, None]
    found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return [noise.detach(), logdet.detach(), x.grad * inside[:, None], cond.grad, *found]


def inverse_gradients(
    network: FloWaveNet, noise: Tensor, cond: Tensor, lengths: Tensor | None, reversible: bool
) -> list[Tensor]:
    """Return sound, and gradients of a loss on it by noise, conditioning and all parameters."""
    network.reversible = reversible
    network.zero_grad()
    noise, cond = noise.detach().requires_grad_(), cond.detach().requires_grad_()
    x = network.inverse(noise, cond, lengths)
    (0.5 * (torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).view_as(x) * x.square()).sum()).backward()
    found = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return [x.detach(), noise.grad, cond.grad, *found]


def check(name: str, got: Tensor, expected: Tensor, tolerance: float, least: Tensor | float = 0.0) -> None:
    """Compare with a result in float64, relative to its norm, or to ``least`` if that is larger."""
    assert got.shape == expected.shape, name
    error = (got.double() - expected).norm() / max(expected.norm(), least, 1e-3 * expected.numel() ** 0.5)
    assert error < tolerance, f"{name}: error {error:.2g}"


@pytest.mark.parametrize("seed", range(COUNT))
def test_all_ways_agree_with_float64(seed: int) -> None:
    rng = random.Random(seed)
    sizes = draw_sizes(rng)
    torch.manual_seed(seed)
    network = FloWaveNet(**sizes)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    network.eval()
    twin = copy.deepcopy(network).double()
    batch, frames = rng.choice([1, 1, 2, 3]), rng.randint(1, 1500 // network.hop_length + 1)
    samples = frames * network.hop_length
    lengths = None
    if rng.random() < 0.5:
        lengths = torch.tensor([rng.randint(1, samples) for _ in range(batch)])
    x, cond = torch.randn(batch, 1, samples), torch.randn(batch, network.n_mels, frames)
    if lengths is not None:
        x = x * (torch.arange(samples) < lengths[:, None, None])
    given = as_laid_out(x, rng.randint(0, 4)), as_laid_out(cond, rng.randint(0, 4))
    says = f"{sizes}, batch {batch}, {frames} frames, lengths {lengths}"

    reference = gradients(twin, x.double(), cond.double(), lengths, reversible=False)
    names = ["noise", "log-determinant", "gradient of x", "gradient of cond"]
    names += [f"gradient of {name}" for name, parameter in twin.named_parameters() if parameter.grad is not None]
    # Some gradients are sums that nearly cancel: what they consist of isn't smaller than the others.
    least = 0.01 * torch.stack([gradient.norm() for gradient in reference[2:]]).norm()
    for reversible in (True, False):
        for name, got, expected in zip(names, gradients(network, *given, lengths, reversible), reference, strict=True):
            limits = (GRADIENTS, least) if "gradient" in name else (VALUES,)
            check(f"{name} (reversible {reversible}) of {says}", got, expected, *limits)
    noise = reference[0] + 0.1 * torch.randn_like(reference[0])  # not just what the forward pass gave
    check_inverse_gradients(network, twin, noise, cond, lengths, says)
    check_inverse(network, twin, noise, cond, lengths, rng, says)


def check_inverse_gradients(
    network: FloWaveNet, twin: FloWaveNet, noise: Tensor, cond: Tensor, lengths: Tensor | None, says: str
) -> None:
    """Compare the inverse and its gradients, in both ways, with float64."""
    reference = inverse_gradients(twin, noise, cond.double(), lengths, reversible=False)
    least = 0.01 * torch.stack([gradient.norm() for gradient in reference[1:]]).norm()
    for reversible in (True, False):
        found = inverse_gradients(network, noise.float(), cond, lengths, reversible)
        check(f"inverse of {says}", found[0], reference[0], VALUES)
        for i, (got, expected) in enumerate(zip(found[1:], reference[1:], strict=True)):
            check(f"gradient {i} of the inverse (reversible {reversible}) of {says}", got, expected, GRADIENTS, least)


@torch.no_grad()
def check_inverse(
    network: FloWaveNet,
    twin: FloWaveNet,
    noise: Tensor,
    cond: Tensor,
    lengths: Tensor | None,
    rng: random.Random,
    says: str,
) -> None:
    """Compare synthesis with plain modules, which undo the forward pass."""
    expected = twin.inverse_by_modules(noise, cond.double(), lengths)
    given = as_laid_out(noise.float(), rng.randint(0, 4)), as_laid_out(cond, rng.randint(0, 4))
    ways: dict[str, Callable[[], Tensor]] = {
        "plain inverse": lambda: network.inverse_by_modules(*given, lengths),
        "inverse": lambda: network.inverse(*given, lengths),
        "prepared": lambda: PreparedFlow(network).inverse(*given, lengths),
        "in pieces": lambda: in_pieces(PreparedFlow(network), *given, lengths, rng),
    }
    for name, way in ways.items():
        check(f"{name} of {says}", way(), expected, VALUES)


def in_pieces(flow: PreparedFlow, noise: Tensor, cond: Tensor, lengths: Tensor | None, rng: random.Random) -> Tensor:
    """Synthesise some frames at a time."""
    session, made, first, frames = flow.session(len(noise), lengths), [], 0, cond.shape[2]
    while first < frames:
        last = min(frames, first + rng.randint(1, max(1, frames // 2)))
        samples = noise[:, 0, first * flow.hop_length : last * flow.hop_length]
        made.append(session.push(samples, cond[:, :, first:last].transpose(1, 2), final=last == frames))
        first = last
    return torch.cat(made, dim=1)[:, None]
