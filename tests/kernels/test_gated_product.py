"""The fused gate and product: torch's form against the definition, the kernel against torch's form, and the choice."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowavenet_plugin.flow.wavenet import gated_activation
from flowavenet_plugin.kernels import backends
from flowavenet_plugin.kernels.backends import Fused, Separate, choose_backend
from gated_product_twin import gated_product

SCRIPT = Path(__file__).with_name("gated_product_cases.py")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def test_it_is_the_gate_and_a_product() -> None:
    torch.manual_seed(0)
    pre, weight = torch.randn(7, 10).double(), torch.randn(5, 3).double()
    bias, base, mask = torch.randn(3).double(), torch.randn(7, 3).double(), (torch.rand(7, 1) > 0.5).double()
    doubled = pre.clone()
    doubled[:, :5] *= 2  # the factor of the filters is part of the weights elsewhere
    gate = -gated_activation(pre.t()[None])[0].t()
    expected = (-0.6 * gate @ weight + bias + 0.7 * base) * mask
    out = torch.empty(7, 3).double()
    assert gated_product(doubled, weight, bias, base, -0.6, 0.7, mask, out) is out
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert gated_product(doubled, weight, None, None, 1.0, 1.0, None, out) is out
    torch.testing.assert_close(out, gate @ weight, rtol=0, atol=1e-12)


def compare(device: str, **environment: str) -> list[tuple[str, float, float]]:
    """Run the comparison in a process of its own."""
    command = [sys.executable, str(SCRIPT), device]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert run.returncode == 0, run.stderr[-2000:]
    rows = json.loads(run.stdout.splitlines()[-1])
    assert len(rows) >= 14
    return rows


def check(rows: list[tuple[str, float, float]]) -> None:
    for case, difference, largest in rows:
        tolerance = 2e-2 if "bfloat16" in case else 3e-3 if "float16" in case else 1e-5
        assert 0.1 < largest < 100 and difference <= tolerance * max(1.0, largest), (case, difference, largest)


@needs_triton
def test_the_kernel_is_its_twin_in_the_interpreter() -> None:
    check(compare("cpu", TRITON_INTERPRET="1"))


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_compiled_kernel_is_its_twin() -> None:
    check(compare("cuda", TRITON_INTERPRET="0"))


def test_the_kernel_is_imported_where_it_is_chosen_only() -> None:
    name = "flowavenet_plugin.kernels.triton_gated_product"
    code = (
        "import sys, torch; import flowavenet_plugin.vocoder.flowavenet_vocoder\n"
        "from flowavenet_plugin.kernels.backends import choose_backend as choose\n"
        "choose(torch.device('cpu'), torch.float32)\n"
        f"print('{name}' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@needs_triton
def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert type(choose_backend(torch.device("cpu"), torch.float32)) is Separate
    assert type(choose_backend(cuda, torch.float64)) is Separate
    chosen = choose_backend(cuda, torch.bfloat16)
    assert type(chosen) is Fused
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(2, 4\)"):
        chosen._product(torch.zeros(3, 5), torch.zeros(2, 4), None, None, 1.0, 1.0, None, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="keeps no activations"):
        chosen.gate(None, 0, *[torch.zeros(3, 4)] * 3, 0, None, keep=True)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert type(choose_backend(cuda, torch.bfloat16)) is Separate
