"""The model of the original FloWaveNet code, imported from a clone, with weights of one of our networks.

    git clone https://github.com/ksw0306/FloWaveNet /path/of/clone
    python benchmarks/original.py --original /path/of/clone

builds both at a small size and prints how far their numbers are from each other.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import warnings
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.vocoder.original_weights import import_state_dict

#: What the original's code fixes; everything else is an argument.
FIXED = dict(filter_size=256, kernel_size=3, causal=False, upsample_scales=(16, 16))


def build_original(
    clone: str | Path,
    n_mels: int = 80,
    n_block: int = 8,
    n_flow: int = 6,
    n_layer: int = 2,
    affine: bool = True,
    block_per_split: int = 4,
) -> nn.Module:
    """Build the original's ``Flowavenet``; its other sizes are :data:`FIXED`.

    Args:
        clone: Folder of a clone of github.com/ksw0306/FloWaveNet.
        n_mels: Mel bands, as for the other arguments see :class:`FloWaveNet`.
        n_block: Context blocks.
        n_flow: Flow steps per block.
        n_layer: Dilated layers per WaveNet.
        affine: Affine couplings, else additive.
        block_per_split: Blocks between two splits.

    Raises:
        ValueError: If the folder is not a clone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `is not` with a number, and the older form of weight_norm
        return _import(Path(clone)).Flowavenet(
            in_channel=1,
            cin_channel=n_mels,
            n_block=n_block,
            n_flow=n_flow,
            n_layer=n_layer,
            affine=affine,
            block_per_split=block_per_split,
        )


def copy_weights(flow: FloWaveNet, original: nn.Module) -> None:
    """Give the original the weights of our network, so that both compute the same function.

    Parameters that only the original has (the residual branch of each last layer, which nothing reads) stay.

    Raises:
        ValueError: If their sizes differ.
    """
    ours, theirs = flow.state_dict(), original.state_dict()
    mapped = import_state_dict(theirs).mapped
    parts: dict[str, list[str]] = {}
    for old, new in mapped.items():
        parts.setdefault(new, []).append(old)
    for new, olds in parts.items():
        pieces = ours[new].split([len(theirs[old]) for old in olds])
        theirs.update(zip(olds, (piece.clone() for piece in pieces), strict=True))
    original.load_state_dict(theirs)
    for name, value in import_state_dict(original.state_dict()).state_dict.items():
        if not name.endswith("initialized") and not torch.equal(value, ours[name]):
            raise ValueError(f"{name} didn't arrive: {tuple(value.shape)} there, {tuple(ours[name].shape)} here")
    for module in original.modules():
        if hasattr(module, "initialized"):
            module.initialized = True


@torch.no_grad()
def couple(flow: FloWaveNet, strength: float = 0.1, seed: int = 0) -> None:
    """Give the flow weights as after training: ActNorm started, and end convolutions that do something.

    Args:
        flow: Changed in place.
        strength: About the standard deviation of what the WaveNets predict.
        seed: Of the weights drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, module in flow.named_modules():
        if name.endswith("actnorm"):
            module.scale.copy_(1 + 0.05 * torch.randn(module.scale.shape, generator=generator))
            module.loc.copy_(0.05 * torch.randn(module.loc.shape, generator=generator))
            module.initialized.fill_(1)
        elif name.endswith("end"):
            weight = module.conv.weight
            weight.copy_(strength / math.sqrt(weight.shape[1]) * torch.randn(weight.shape, generator=generator))


def original_log_likelihood(original: nn.Module, x: Tensor, cond: Tensor) -> Tensor:
    """Return the original's log-likelihood of a batch in nats per sample, 0-dim; its loss is the negative."""
    log_p, logdet = original(x, cond)
    return log_p + logdet


def _import(clone: Path) -> ModuleType:
    """Import the clone's model.py; its modules' names stay free for others."""
    for name in ("model", "modules"):
        if not (clone / f"{name}.py").is_file():
            raise ValueError(f"{clone} is not a clone of the original: {name}.py is missing")
    before = sys.modules.get("modules")
    try:
        sys.modules["modules"] = _load("flowavenet_original_modules", clone / "modules.py")
        return _load("flowavenet_original_model", clone / "model.py")
    finally:
        if before is None:
            sys.modules.pop("modules", None)
        else:
            sys.modules["modules"] = before


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def compare(clone: str | Path, dtype: torch.dtype = torch.float64) -> dict[str, float]:
    """Return the largest differences of a small network's likelihood and of its inverse to the original's."""
    torch.manual_seed(0)
    sizes = dict(n_mels=80, n_block=4, n_flow=2, n_layer=2, block_per_split=2)
    flow = FloWaveNet(**sizes, **FIXED).to(dtype).eval()
    couple(flow)
    original = build_original(clone, **sizes).to(dtype).eval()
    copy_weights(flow, original)
    x, cond = torch.randn(2, 1, 512, dtype=dtype), torch.randn(2, 80, 2, dtype=dtype)
    likelihood = flow.log_likelihood(x, cond).mean() - original_log_likelihood(original, x, cond)
    noise = torch.randn_like(x)
    audio = flow.inverse(noise, cond) - original.reverse(noise, cond)
    return dict(log_likelihood=likelihood.abs().item(), inverse=audio.abs().max().item())


def main() -> None:
    """Print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", required=True, help="folder of a clone of github.com/ksw0306/FloWaveNet")
    args = parser.parse_args()
    print(json.dumps(compare(args.original)))


if __name__ == "__main__":
    main()
