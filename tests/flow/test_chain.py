"""Training passes: gradients of the rebuilt and of the kept activations against plain autograd of the modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowavenet_plugin.flow import FloWaveNet
from plain_flows import OPTIONS, SIZES, build, by_modules, data, gradients, overall, scalar, worst


def saved_bytes(network: FloWaveNet, x: Tensor, cond: Tensor) -> int:
    """Count what a forward pass keeps, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(x, cond)
    assert outputs[0].requires_grad
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in parameters)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("reversible", [True, False], ids=["rebuilt", "kept"])
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_those_of_the_modules(name: str, reversible: bool, padded: bool, batch: int) -> None:
    network = build(reversible=reversible, **OPTIONS[name])
    x, cond = data(network, batch)
    lengths = torch.tensor([x.shape[2] - 1, x.shape[2] // 2, x.shape[2]][:batch]) if padded else None
    expected = by_modules(network, x, cond, lengths)
    ours = network(x, cond, lengths)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert worst(gradients(network, ours, x, cond), gradients(network, expected, x, cond)) < 1e-8


def test_strong_couplings_of_a_deep_network_stay_accurate() -> None:
    """In float32, against float64: rebuilding inputs costs little beside the rounding of the kept pass."""
    options = dict(n_block=8, n_flow=6, block_per_split=4, upsample_scales=(16, 16), strength=0.15)
    exact = build(**options)
    x, cond = data(exact, 1, 3)
    expected = gradients(exact, exact(x, cond), x, cond)
    errors = {}
    for reversible in (True, False):
        network = build(torch.float32, reversible=reversible, **options)
        network.load_state_dict({key: value.float() for key, value in exact.state_dict().items()})
        ours = network(x.float(), cond.float())
        errors[reversible] = overall(gradients(network, ours), {k: v for k, v in expected.items() if k[:5] != "input"})
    log_scales = []
    hooks = [
        step.coupling.register_forward_hook(lambda module, args, output: log_scales.append(output[1]))
        for block in exact.blocks
        for step in block.steps
    ]
    by_modules(exact, x, cond, None)
    assert len(log_scales) == len(hooks) and max(v.abs().max().item() for v in log_scales) > 10  # they are strong
    assert errors[True] < 1e-4
    assert errors[True] < 10 * errors[False]


def test_kept_memory_does_not_grow_with_the_number_of_flows() -> None:
    counts = {}
    for reversible in (True, False):
        for n_flow in (2, 4, 8):
            network = build(reversible=reversible, n_flow=n_flow)
            counts[reversible, n_flow] = saved_bytes(network, *data(network))
    assert counts[True, 2] == counts[True, 4] == counts[True, 8]
    assert counts[False, 8] - counts[False, 4] == 2 * (counts[False, 4] - counts[False, 2]) > 0
    assert counts[True, 2] < counts[False, 2]


def test_functions_keep_tensors_by_autograds_own_means_only() -> None:
    network = build()
    todo, nodes = [network(*data(network))[0].grad_fn], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            todo += [following for following, _ in node.next_functions]
    functions = [node for node in nodes if "Chain" in node.name()]
    assert len(functions) == 3  # of a block each
    for node in functions:
        kept = [*vars(node).values(), *vars(vars(node)["chain"]).values()]
        assert not any(isinstance(value, Tensor) and value.is_floating_point() for value in kept)


def test_double_backward_says_that_there_is_none() -> None:
    network = build()
    x, cond = data(network)
    (grad,) = torch.autograd.grad(scalar(*network(x, cond)), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_changed_weights_before_the_backward_pass_are_an_error() -> None:
    network = build()
    loss = scalar(*network(*data(network)))
    with torch.no_grad():
        network.blocks[0].steps[0].actnorm.scale.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_network_used_twice_gets_the_sum_of_both_gradients_and_each_hook_once() -> None:
    network = build()
    first, second = data(network, seed=1), data(network, seed=2)
    expected = [gradients(network, network(*pair)) for pair in (first, second)]
    calls: list[str] = []
    for name, parameter in network.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: calls.append(name))
    (scalar(*network(*first)) + scalar(*network(*second))).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[0][name] + expected[1][name])
    assert sorted(calls) == sorted(dict(network.named_parameters()))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("reversible", [True, False], ids=["rebuilt", "kept"])
def test_what_the_caller_holds_is_not_written_to(reversible: bool, padded: bool, batch: int) -> None:
    network = build(reversible=reversible)
    x, cond = data(network, batch)
    lengths = torch.tensor([x.shape[2] - 1, x.shape[2] // 2, x.shape[2]][:batch]) if padded else None
    noise, logdet = network(x, cond, lengths)
    grads = torch.randn_like(noise), torch.randn_like(logdet)
    held = [x, cond, noise, logdet, *grads, *network.parameters(), *network.buffers()]
    versions, values = [tensor._version for tensor in held], [tensor.detach().clone() for tensor in held]
    torch.autograd.backward((noise, logdet), grads)
    network(x, cond, lengths)
    assert [tensor._version for tensor in held] == versions
    assert all(torch.equal(tensor, value) for tensor, value in zip(held, values, strict=True))


@pytest.mark.parametrize("reversible", [True, False])
def test_training_goes_on_after_inference_mode(reversible: bool) -> None:
    network, expected = build(reversible=reversible), build(reversible=reversible)
    x, cond = data(network)
    with torch.inference_mode():
        first = network.eval()(x, cond)
    assert not first[0].is_inference() and not first[0].requires_grad
    network.train()
    ours = gradients(network, network(x, cond), x, cond)
    assert worst(ours, gradients(expected, expected(x, cond), x, cond)) == 0


def test_checkpointing_gives_the_same_gradients() -> None:
    network = build()
    x, cond = data(network)
    expected = gradients(network, network(x, cond), x, cond)
    ours = gradients(network, checkpoint(network, x, cond, use_reentrant=False), x, cond)
    assert worst(ours, expected) < 1e-12


def test_gradients_of_a_block_arrive_before_the_block_below_runs_backwards() -> None:
    network = build()
    order: list[int] = []
    for i, block in enumerate(network.blocks):
        block.steps[0].actnorm.loc.register_post_accumulate_grad_hook(lambda _, i=i: order.append(i))
    scalar(*network(*data(network))).backward()
    assert order == [2, 1, 0]


@pytest.mark.parametrize("reversible", [True, False])
def test_frozen_parameters_and_inputs_without_gradient(reversible: bool) -> None:
    network = build(reversible=reversible)
    x, cond = data(network)
    expected = gradients(network, network(x, cond))
    frozen = [name for name, _ in network.named_parameters() if "blocks.1" in name or "upsampler" in name]
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    copies = x.detach().clone(), cond.detach().clone()
    scalar(*network(x.detach(), cond.detach())).backward()
    for name, parameter in network.named_parameters():
        if name in frozen:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name])
    assert torch.equal(x, copies[0]) and torch.equal(cond, copies[1])


def test_without_gradients_nothing_is_recorded_and_numbers_are_the_same() -> None:
    network = build(reversible=False).eval()
    x, cond = data(network)
    with torch.no_grad():
        outputs = network(x, cond)
    assert not outputs[0].requires_grad
    assert torch.equal(outputs[0], network(x, cond)[0])


@pytest.mark.parametrize("reversible", [True, False])
def test_actnorm_starts_in_the_first_training_pass(reversible: bool) -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(FloWaveNet(**SIZES, reversible=reversible).double().train())
    x, cond = data(networks[0])
    by_modules(networks[0], x, cond, None)
    networks[1](x, cond)
    for (name, one), (_, other) in zip(*(network.named_parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    starts = [norm.loc for norm in networks[1].modules() if hasattr(norm, "initialized")]
    assert all(start.abs().sum() > 0 for start in starts)


def test_bfloat16_autocast_is_close_to_float32_and_rebuilds_what_was_computed() -> None:
    networks = {
        name: build(torch.float32, reversible=name != "kept", strength=0.1) for name in ("full", "rebuilt", "kept")
    }
    found = {}
    for name, network in networks.items():
        x, cond = data(network, frames=20)
        with torch.autocast("cpu", torch.bfloat16, enabled=name != "full"):
            noise, logdet = network(x, cond)
        assert noise.dtype == logdet.dtype == torch.float32
        found[name] = gradients(network, (noise, logdet), x, cond)
    assert 0 < overall(found["rebuilt"], found["full"]) < 0.05
    # The same arithmetic in both passes: what differs is float32 rounding of rebuilt inputs, seen through bfloat16.
    assert overall(found["rebuilt"], found["kept"]) < 0.2 * overall(found["rebuilt"], found["full"])


def test_compiled_network_has_the_same_gradients() -> None:
    network = build()
    x, cond = data(network)
    expected = gradients(network, network(x, cond))
    ours = gradients(network, torch.compile(network, backend="eager")(x, cond))
    assert worst(ours, expected) < 1e-12


def test_parameters_are_all_passed_on() -> None:
    network = build()
    counted = [p for block in network.blocks for p in block.chain_parameters()]
    upsampler = list(network.upsampler.parameters())
    assert {id(p) for p in (*counted, *upsampler)} == {id(p) for p in network.parameters()}
    assert all(isinstance(parameter, nn.Parameter) for parameter in counted)
