"""The inverse's gradients, for losses on sampled sound: rebuilt and kept, against plain autograd of the modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.flow import FloWaveNet
from plain_flows import OPTIONS, build, data, inverse_by_modules, overall, worst


def scalar(x: Tensor) -> Tensor:
    """Return a loss to which every sample contributes otherwise."""
    return (torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).view(x.shape) * (x + 0.3).square()).sum()


def gradients(network: FloWaveNet, x: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
    """Return the gradients of :func:`scalar` of all parameters and the inputs."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    names += tuple(f"input{i}" for i in range(len(inputs)))
    return dict(zip(names, torch.autograd.grad(scalar(x), (*parameters, *inputs)), strict=True))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("reversible", [True, False], ids=["rebuilt", "kept"])
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_those_of_the_modules(name: str, reversible: bool, padded: bool, batch: int) -> None:
    network = build(reversible=reversible, **OPTIONS[name])
    noise, cond = data(network, batch)
    size = noise.shape[2]
    lengths = torch.tensor([size - 1, size // 2, size][:batch]) if padded else None
    expected, ours = inverse_by_modules(network, noise, cond, lengths), network.inverse(noise, cond, lengths)
    for found in (ours, network.inverse_by_modules(noise, cond, lengths)):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert worst(gradients(network, ours, noise, cond), gradients(network, expected, noise, cond)) < 1e-8


def test_both_directions_have_one_jacobian() -> None:
    network = build(mixing=True)
    noise, cond = data(network, 1, 2)
    x = network.inverse(noise, cond).detach()
    there = torch.autograd.functional.jacobian(lambda v: network(v, cond)[0].flatten(), x)
    back = torch.autograd.functional.jacobian(lambda v: network.inverse(v, cond).flatten(), noise.detach())
    product = there.flatten(1) @ back.flatten(1)
    torch.testing.assert_close(product, torch.eye(len(product)).double(), rtol=0, atol=1e-9)


def test_float32_of_a_deep_network_stays_accurate() -> None:
    options = dict(n_block=6, n_flow=6, block_per_split=4, upsample_scales=(16, 16), strength=0.1)
    exact = build(**options)
    noise, cond = data(exact, 1, 3)
    expected, errors = gradients(exact, exact.inverse(noise, cond)), {}
    for reversible in (True, False):
        network = build(torch.float32, reversible=reversible, **options)
        network.load_state_dict({key: value.float() for key, value in exact.state_dict().items()})
        errors[reversible] = overall(gradients(network, network.inverse(noise.float(), cond.float())), expected)
    assert errors[True] < 1e-3 and errors[True] < 10 * errors[False]


def test_autocast_is_close_to_float32_and_rebuilds_what_was_computed() -> None:
    found = {}
    for name in ("full", "rebuilt", "kept"):
        network = build(torch.float32, reversible=name != "kept", strength=0.1)
        noise, cond = data(network, frames=20)
        with torch.autocast("cpu", torch.bfloat16, enabled=name != "full"):
            x = network.inverse(noise, cond)
        assert x.dtype == torch.float32
        found[name] = gradients(network, x, noise, cond)
    assert 0 < overall(found["rebuilt"], found["full"]) < 0.05
    assert overall(found["rebuilt"], found["kept"]) < 0.2 * overall(found["rebuilt"], found["full"])


@pytest.mark.parametrize("reversible", [True, False])
def test_both_directions_in_one_step_give_the_sum_of_their_gradients(reversible: bool) -> None:
    network = build(reversible=reversible)
    noise, cond = data(network)
    x, _ = data(network, seed=2)
    alone = gradients(network, network.inverse(noise, cond))
    likelihood = -network.log_likelihood(x, cond).sum()
    other = torch.autograd.grad(likelihood, list(network.parameters()))
    (scalar(network.inverse(noise, cond)) - network.log_likelihood(x, cond).sum()).backward()
    for (name, parameter), grad in zip(network.named_parameters(), other, strict=True):
        torch.testing.assert_close(parameter.grad, alone[name] + grad)


@pytest.mark.parametrize("reversible", [True, False])
def test_what_the_caller_holds_is_not_written_to(reversible: bool) -> None:
    network = build(reversible=reversible)
    noise, cond = data(network, 3)
    x = network.inverse(noise, cond)
    grad = torch.randn_like(x)
    held = [noise, cond, x, grad, *network.parameters(), *network.buffers()]
    versions, values = [tensor._version for tensor in held], [tensor.detach().clone() for tensor in held]
    x.backward(grad)
    assert [tensor._version for tensor in held] == versions
    assert all(torch.equal(tensor, value) for tensor, value in zip(held, values, strict=True))


def test_kept_memory_does_not_grow_with_the_number_of_flows_where_activations_are_rebuilt() -> None:
    counts = {}
    for reversible in (True, False):
        for n_flow in (2, 4):
            network, kept = build(reversible=reversible, n_flow=n_flow), {}
            own = {parameter.data_ptr() for parameter in network.parameters()}

            def pack(tensor: Tensor, kept: dict = kept) -> Tensor:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                x = network.inverse(*data(network))
            assert x.requires_grad
            counts[reversible, n_flow] = sum(each.nbytes() for place, each in kept.items() if place not in own)
    assert counts[True, 2] == counts[True, 4] < counts[False, 2] < counts[False, 4]
