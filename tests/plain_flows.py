"""Small networks whose weights all matter, computed from their modules by themselves, with the paper's swaps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.layout import squeeze, unsqueeze

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


def _swap(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return torch.cat([second, first], dim=1)


def _oriented(x: Tensor | None, block: nn.Module) -> Tensor | None:
    return x if x is None or len(block.steps) % 2 == 0 else _swap(x)


def _seen(network: FloWaveNet, x: Tensor, cond: Tensor, lengths: Tensor | None) -> tuple[list[Tensor], list, list]:
    """Return x, conditioning and mask as each block sees them: halves swapped by every step, as the paper says it."""
    x, conds, mask = network._prepare(x, cond, lengths)
    own, xs, masks, seen = conds[0][0].transpose(1, 2), [], [], []
    for i, block in enumerate(network.blocks):
        times = network.plan[i].squeezes
        x, mask = squeeze(x, times), None if mask is None else squeeze(mask, times)
        own = squeeze(own, times) if conds[i][1] is not None else conds[i][0].transpose(1, 2)
        xs, masks, seen = [*xs, x], [*masks, mask], [*seen, own]
        x, mask = _oriented(x, block), _oriented(mask, block)
        own = own if conds[i][1] is None else _oriented(own, block)
        if block.split is not None:
            x, mask = x.chunk(2, dim=1)[0], None if mask is None else mask.chunk(2, dim=1)[0]
    return xs, seen, masks


def _parts(network: FloWaveNet, i: int, cond: Tensor, mask: Tensor | None) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Return the modules of a block, each with what it reads of the conditioning, and its mask."""
    block, halved = network.blocks[i], network.plan[i].steps[0].conds is not None
    parts = []
    for step in block.steps:
        parts.append((step, cond.chunk(2, dim=1)[0] if halved else cond, mask))
        cond, mask = _swap(cond) if halved else cond, None if mask is None else _swap(mask)
    return parts if block.split is None else [*parts, (block.split, cond, mask)]


def by_modules(network: FloWaveNet, x: Tensor, cond: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the network's forward pass from its modules by themselves, with autograd's own backward pass."""
    size, (xs, conds, masks) = x.shape[2], _seen(network, x, cond, lengths)
    x, logdet, leaves = xs[0], x.new_zeros(x.shape[0]), []
    for i, block in enumerate(network.blocks):
        x = squeeze(x, 1) if i else x
        for part, part_cond, mask in _parts(network, i, conds[i], masks[i]):
            x, part_logdet = part(x, part_cond, mask)
            x, logdet = x if part is block.split else _swap(x), logdet + part_logdet
        if block.split is not None:
            x, leaf = x.chunk(2, dim=1)
            leaves.append(leaf)
    for i, block in reversed(list(enumerate(network.blocks))):
        x = torch.cat([x, leaves.pop()], dim=1) if block.split is not None else x
        x = unsqueeze(_oriented(x, block), network.plan[i].squeezes)
    return x[:, :, :size], logdet


def inverse_by_modules(network: FloWaveNet, noise: Tensor, cond: Tensor, lengths: Tensor | None) -> Tensor:
    """The same for the inverse."""
    size, (seen, conds, masks) = noise.shape[2], _seen(network, noise, cond, lengths)
    x = _oriented(seen[-1], network.blocks[-1])
    for i, block in reversed(list(enumerate(network.blocks))):
        x = torch.cat([x, _oriented(seen[i], block).chunk(2, dim=1)[1]], dim=1) if block.split is not None else x
        for part, part_cond, mask in reversed(_parts(network, i, conds[i], masks[i])):
            x = part.inverse(x if part is block.split else _swap(x), part_cond, mask)
        x = unsqueeze(x, network.plan[i].squeezes)
    return x[:, :, :size]


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
