"""Compares the Triton kernel with its twin; prints one JSON line of (case, largest difference, largest value).

    TRITON_INTERPRET=1 python tests/kernels/gated_product_cases.py cpu     in Triton's interpreter, without a GPU
    python tests/kernels/gated_product_cases.py cuda                       the compiled kernel

Triton decides at its import whether it interprets, so this is a process of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import torch

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow, stack
from flowavenet_plugin.kernels.backends import Fused
from flowavenet_plugin.kernels.triton_gated_product import gated_product

sys.path.insert(0, str(Path(__file__).parents[1]))
from gated_product_twin import gated_product as twin  # noqa: E402

#: Rows, width, columns; bias, base and mask or not. Smaller than a tile, and more than one, no multiples.
CASES = [
    ((5, 4, 4), (True, True, True)),
    ((70, 33, 130), (True, True, True)),
    ((70, 33, 130), (False, True, False)),
    ((70, 33, 130), (True, False, False)),
    ((66, 64, 32), (False, False, True)),
]


def products(device: str, dtype: torch.dtype) -> list[tuple[str, float, float]]:
    """Run all cases; inputs are views with gaps, as in the flow."""
    rows = []
    for (n, width, columns), given in CASES:
        shapes = (
            (n + 3, 2 * width),
            (n + 5, columns),
            (width, columns),
            (columns,),
            (n + 1, columns),
        )
        pre, base, weight, bias, out = (torch.randn(shape).to(device, dtype) for shape in shapes)
        pre, base, out, weight = pre[2 : n + 2], base[1 : n + 1], out[:n], weight / width**0.5
        mask = (torch.rand(n + 2, 1) > 0.3).to(device, dtype)[:n]
        bias, base, mask = (value if wanted else None for value, wanted in zip((bias, base, mask), given, strict=True))
        expected = twin(pre, weight, bias, base, -0.6, 0.7, mask, torch.empty_like(out))
        got = gated_product(pre, weight, bias, base, -0.6, 0.7, mask, out)
        rows.append((f"{dtype} {given}", (got - expected).abs().max().item(), expected.abs().max().item()))
    expected = twin(pre, weight, None, out, 1.0, 1.0, None, torch.empty_like(out))
    got = gated_product(pre, weight, None, out, 1.0, 1.0, None, out)  # added to itself
    rows.append((f"{dtype} in place", (got - expected).abs().max().item(), expected.abs().max().item()))
    return rows


@torch.no_grad()
def whole_flow(device: str) -> list[tuple[str, float, float]]:
    """Run a flow with the kernel in all of its stacks, against one without; items of one length and of several."""
    torch.manual_seed(0)
    flow = FloWaveNet(n_mels=4, n_block=2, n_flow=2, filter_size=16, block_per_split=1, upsample_scales=(4, 4)).eval()
    for parameter in flow.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    noise, cond = torch.randn(2, 1, 160), torch.randn(2, 4, 10)
    lengths = torch.tensor([160, 57])
    plain = PreparedFlow(flow)
    with (
        mock.patch.object(stack, "choose_backend", lambda *_: Fused(gated_product)),
        mock.patch.object(stack, "fewer_products_pay", lambda *_: False),  # as on a GPU
        mock.patch("flowavenet_plugin.kernels.products.panels_shape", lambda *_: None),
    ):
        fused = PreparedFlow(flow.to(device))
    rows = []
    for name, ends in (("one length", None), ("lengths", lengths)):
        expected = plain.inverse(noise, cond, ends)
        moved = [None if value is None else value.to(device) for value in (noise, cond, ends)]
        difference = (fused.inverse(*moved).cpu() - expected).abs().max().item()
        rows.append((f"flow, {name}", difference, expected.abs().max().item()))
    return rows


def main() -> None:
    """Print the line."""
    device = sys.argv[1]
    torch.manual_seed(0)
    # The interpreter has no bfloat16 products.
    types = (torch.float32, torch.float16) if device == "cpu" else (torch.float32, torch.bfloat16, torch.float16)
    rows = [row for dtype in types for row in products(device, dtype)]
    print(json.dumps([*rows, *whole_flow(device)]))


if __name__ == "__main__":
    main()
