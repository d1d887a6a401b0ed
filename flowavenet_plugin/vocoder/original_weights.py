"""State dicts of the original FloWaveNet code, renamed to ours: dict in, dict out.

Filter and gate, residual and skip, and the conditioning products of all layers are one convolution each here; weight
normalisation works per output channel, so that joining them is exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flowavenet_plugin.flow.plan import PRIOR_LAYERS

#: (old key without its last part, new key, place among the tensors that are joined); new key None: dropped on purpose.
#: "{last}" is the last layer of a stack: its residual branch feeds nothing.
_STACK: tuple[tuple[str, str | None, int], ...] = (
    (r"front_conv\.0\.conv", "front.conv", 0),
    (r"res_blocks\.(?P<layer>\d+)\.filter_conv\.conv", "layers.{layer}.dilated.conv", 0),
    (r"res_blocks\.(?P<layer>\d+)\.gate_conv\.conv", "layers.{layer}.dilated.conv", 1),
    (r"res_blocks\.{last}\.res_conv", None, 0),
    (r"res_blocks\.(?P<layer>\d+)\.res_conv", "layers.{layer}.out", 0),
    (r"res_blocks\.(?P<layer>\d+)\.skip_conv", "layers.{layer}.out", 1),
    (r"res_blocks\.(?P<layer>\d+)\.filter_conv_c", "cond", 0),
    (r"res_blocks\.(?P<layer>\d+)\.gate_conv_c", "cond", 1),
    (r"final_conv\.1\.conv", "skip", 0),
    (r"final_conv\.3\.conv", "end.conv", 0),
    (r"final_conv\.3", "end", 0),
)
_OUTSIDE: tuple[tuple[str, str], ...] = (
    (r"blocks\.(?P<block>\d+)\.flows\.(?P<flow>\d+)\.actnorm", "blocks.{block}.steps.{flow}.actnorm"),
    (r"upsample_conv\.(?P<even>\d+)", "upsampler.layers.{stage}"),
)
_STACK_PREFIXES: tuple[tuple[str, str], ...] = (
    (r"blocks\.(?P<block>\d+)\.flows\.(?P<flow>\d+)\.coupling\.net\.", "blocks.{block}.steps.{flow}.coupling.net."),
    (r"blocks\.(?P<block>\d+)\.prior\.", "blocks.{block}.split.prior."),
)
_LEAVES = {
    "bias": "bias",
    "weight": "weight",
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
    "loc": "loc",
    "scale": "scale",
}


@dataclass
class Imported:
    """What a state dict of the original becomes.

    Attributes:
        sizes: Constructor arguments of :class:`~flowavenet_plugin.flow.FloWaveNet`, read off the shapes.
        state_dict: Our keys.
        mapped: Old key -> new key.
        dropped: Old keys that are left out on purpose.
    """

    sizes: dict[str, Any]
    state_dict: dict[str, Tensor] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def import_state_dict(original: Mapping[str, Tensor]) -> Imported:
    """Rename and join the tensors of the original code's model.

    Args:
        original: Its ``state_dict()``, also one saved from a data-parallel model ("module." before each key).

    Returns:
        The tensors under our keys, the sizes, and which key went where.

    Raises:
        ValueError: If a key is unknown, or tensors that sizes are read off are missing.
    """
    original = {key.removeprefix("module."): value for key, value in original.items()}
    result = Imported(read_sizes(original))
    parts: dict[str, list[tuple[int, int, Tensor]]] = {}
    for key, value in original.items():
        target, layer, place = _translate(key, result.sizes["n_layer"])
        if target is None:
            result.dropped.append(key)
            continue
        result.mapped[key] = target
        parts.setdefault(target, []).append((layer, place, value))
    for target, pieces in parts.items():
        pieces.sort(key=lambda piece: piece[:2])
        tensors = [tensor for _, _, tensor in pieces]
        result.state_dict[target] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        if target.endswith("actnorm.scale"):
            # A trained ActNorm: the original keeps no flag of its data-dependent start.
            result.state_dict[target.removesuffix("scale") + "initialized"] = torch.ones(())
    return result


def read_sizes(original: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the constructor's sizes off the shapes of the original's tensors (without "module.").

    Raises:
        ValueError: If a tensor that is needed is missing, or the model has more than one audio channel.
    """
    net = "blocks.0.flows.0.coupling.net."
    try:
        front = original[net + "front_conv.0.conv.weight_v"]  # (filter_size, channels / 2, 3)
        filter_conv = original[net + "res_blocks.0.filter_conv.conv.weight_v"]  # (filter_size, filter_size, kernel)
        n_mels = original[net + "res_blocks.0.filter_conv_c.weight_v"].shape[1]
        end = original[net + "final_conv.3.conv.weight"]  # (channels / 2 or channels, filter_size, 1)
    except KeyError as error:
        raise ValueError(f"not a state dict of the original FloWaveNet: key {error} is missing") from None
    if front.shape[1] != 1:
        raise ValueError(f"expected a model of one audio channel, found {front.shape[1]}")
    n_block = _count(original, r"blocks\.(\d+)\.")
    priors = sorted(int(match[1]) for key in original if (match := re.match(r"blocks\.(\d+)\.prior\.", key)))
    scales = [
        value.shape[3] // 2
        for key, value in sorted(original.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])])
        if re.fullmatch(r"upsample_conv\.\d+\.weight_v", key)
    ]
    return dict(
        n_mels=n_mels,
        n_block=n_block,
        n_flow=_count(original, r"blocks\.0\.flows\.(\d+)\."),
        n_layer=_count(original, re.escape(net) + r"res_blocks\.(\d+)\."),
        filter_size=front.shape[0],
        kernel_size=filter_conv.shape[2],
        block_per_split=priors[0] + 1 if priors else n_block,
        affine=end.shape[0] == 2 * front.shape[1],
        upsample_scales=scales,
    )


def _count(original: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(match[1]) for key in original if (match := re.match(pattern, key)))


def _translate(key: str, n_layer: int) -> tuple[str | None, int, int]:
    """Return the new key (None: dropped) and the tensor's layer and place among those joined under it."""
    stem, _, leaf = key.rpartition(".")
    if leaf in _LEAVES:
        for pattern, target in _OUTSIDE:
            if match := re.fullmatch(pattern, stem):
                groups = match.groupdict()
                # The original's list holds a leaky ReLU after each convolution.
                stage = int(groups.get("even", 0)) // 2
                return f"{target.format(stage=stage, **groups)}.{_LEAVES[leaf]}", 0, 0
        for prefix, new_prefix in _STACK_PREFIXES:
            if match := re.match(prefix, stem):
                last = (n_layer if "coupling" in prefix else PRIOR_LAYERS) - 1
                found = _translate_in_stack(stem[match.end() :], last)
                if found is not None:
                    target, layer, place = found
                    if target is None:
                        return None, layer, place
                    return f"{new_prefix.format(**match.groupdict())}{target}.{_LEAVES[leaf]}", layer, place
    raise ValueError(f"key {key!r} is not one of the original FloWaveNet's")


def _translate_in_stack(stem: str, last: int) -> tuple[str | None, int, int] | None:
    for pattern, target, place in _STACK:
        if match := re.fullmatch(pattern.replace("{last}", str(last)), stem):
            layer = match.groupdict().get("layer", "0")
            return (None if target is None else target.format(layer=layer)), int(layer), place
    return None
