"""Training passes: gradients of the rebuilt and of the kept activations against plain autograd of the modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.transforms import squeeze, sum_samples, unsqueeze

SIZES = dict(n_mels=4, n_block=3, n_flow=2, n_layer=2, filter_size=8, block_per_split=2, upsample_scales=(2, 2))
OPTIONS = {
    "plain": {},
    "odd": dict(n_flow=3),
    "odd_bands": dict(n_mels=5, n_flow=3),
    "additive": dict(affine=False),
    "causal": dict(causal=True),
    "single_scale": dict(block_per_split=8),
    "surplus": dict(upsample_scales=(3, 2)),
    "wide": dict(kernel_size=5, n_layer=1),
    "deep_stack": dict(n_layer=3, n_block=1),
    "per_block_sizes": dict(n_flow=[1, 2, 3], n_layer=[2, 1, 2], filter_size=[4, 8, 6], first_squeeze=4),
    "mixing": dict(mixing=True, n_flow=3),
    "mixing_surplus": dict(mixing=True, affine=False, upsample_scales=(3, 2), block_per_split=[1, 2]),
    "shared": dict(share_stacks=True, n_flow=3),
    "per_block_cond": dict(cond_channels=3, cond_filter_size=5, n_flow=3),
    "per_block_cond_surplus": dict(cond_channels=[2, 3, 4], cond_filter_size=5, upsample_scales=(3,)),
}


def build(dtype: torch.dtype = torch.float64, strength: float = 0.3, **options: object) -> FloWaveNet:
    """Return a small network in training whose weights all matter."""
    torch.manual_seed(0)
    network = FloWaveNet(**{**SIZES, **options}).to(dtype).train()
    for name, parameter in network.named_parameters():
        parameter.data.add_(strength * torch.randn_like(parameter))
        if name.endswith("actnorm.scale"):
            parameter.data.copy_(1 + 0.1 * torch.randn_like(parameter))
    for module in network.modules():
        if hasattr(module, "initialized"):
            module.initialized.fill_(1)
    return network


def data(network: FloWaveNet, batch: int = 2, frames: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return a waveform and a conditioning, both with gradients."""
    generator = torch.Generator().manual_seed(seed)
    dtype = network.blocks[0].steps[0].actnorm.loc.dtype
    x = torch.randn(batch, 1, frames * network.hop_length, generator=generator).to(dtype)
    cond = torch.randn(batch, network.n_mels, frames, generator=generator).to(dtype)
    return x.requires_grad_(), cond.requires_grad_()


def by_modules(network: FloWaveNet, x: Tensor, cond: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the network's forward pass from its modules by themselves, with autograd's own backward pass."""
    size = x.shape[2]
    x, conds, mask = network._prepare(x, cond, lengths)
    cond = conds[0][0].transpose(1, 2)  # that of the first block, or shared by all
    logdet, leaves = x.new_zeros(x.shape[0]), []
    for i, block in enumerate(network.blocks):
        times = 1 if i else network.levels[0]
        x, cond = squeeze(x, times), squeeze(cond, times) if block.cond_halves else conds[i][0].transpose(1, 2)
        mask = None if mask is None else squeeze(mask, times)
        for step, step_cond, step_mask in block._steps(cond, mask):
            x, step_logdet = step(x, step_cond, step_mask)
            logdet = logdet + step_logdet
        cond, mask = block.orient(cond) if block.cond_halves else cond, block.orient(mask)
        if block.split is not None:
            x, leaf = x.chunk(2, dim=1)
            mask, leaf_mask = (None, None) if mask is None else mask.chunk(2, dim=1)
            columns = None if mask is None else torch.maximum(mask, leaf_mask).amax(dim=1, keepdim=True)
            mean, log_sd = block.split.prior(x, cond, columns).chunk(2, dim=1)
            leaf = (leaf - mean) * torch.exp(-log_sd)
            leaves.append(leaf if leaf_mask is None else leaf * leaf_mask)
            logdet = logdet - sum_samples(log_sd, leaf_mask)
    for i, block in reversed(list(enumerate(network.blocks))):
        x = torch.cat([x, leaves.pop()], dim=1) if block.split is not None else x
        x = unsqueeze(block.orient(x), 1 if i else network.levels[0])
    return x[:, :, :size], logdet


def scalar(noise: Tensor, logdet: Tensor) -> Tensor:
    """Return a loss to which every sample and item contributes otherwise."""
    weights = torch.linspace(0.5, 1.5, noise.numel(), dtype=noise.dtype).view(noise.shape)
    return (weights * noise.square()).sum() - (logdet * torch.linspace(1, 2, len(logdet), dtype=logdet.dtype)).sum()


def gradients(network: FloWaveNet, outputs: tuple[Tensor, Tensor], *inputs: Tensor) -> dict[str, Tensor]:
    """Return the gradients of :func:`scalar` of all parameters and the inputs."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    names += tuple(f"input{i}" for i in range(len(inputs)))
    return dict(zip(names, torch.autograd.grad(scalar(*outputs), (*parameters, *inputs)), strict=True))


def worst(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest error of any tensor, relative to its largest value."""
    errors = {
        k: ((ours[k].double() - v.double()).abs().max() / v.double().abs().max()).item() for k, v in expected.items()
    }
    return max(errors.values())


def overall(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the norm of all errors relative to the norm of all gradients."""
    squares = [((ours[k].double() - v.double()).square().sum(), v.double().square().sum()) for k, v in expected.items()]
    return (sum(error for error, _ in squares) / sum(size for _, size in squares)).sqrt().item()


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
    functions = [node for node in nodes if "ChainFunction" in node.name()]
    assert len(functions) == 4  # three blocks and a split
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
    counted = [p for block in network.blocks for step in block.steps for p in step.chain_parameters()]
    splits = [p for block in network.blocks if block.split is not None for p in block.split.prior.stack_parameters()]
    upsampler = list(network.upsampler.parameters())
    assert {id(p) for p in (*counted, *splits, *upsampler)} == {id(p) for p in network.parameters()}
    assert all(isinstance(parameter, nn.Parameter) for parameter in counted)
