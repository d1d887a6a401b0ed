"""What the context switches off and on, and what is left as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from flowavenet_plugin.flow.arithmetic import (
    arithmetic,
    exact_product,
    full_precision,
    own_arithmetic,
    usable,
    wavenet_dtype,
)
from flowavenet_plugin.flow.flowavenet import FloWaveNet

CPU = torch.device("cpu")


def test_autocast_is_off_inside_but_known() -> None:
    x = torch.ones(2, 2)
    assert wavenet_dtype(x) == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert wavenet_dtype(x) == dtype and wavenet_dtype(x.double()) == torch.float64
            with arithmetic(CPU), arithmetic(CPU):
                assert not torch.is_autocast_enabled("cpu") and (x @ x).dtype == torch.float32
                assert wavenet_dtype(x) == dtype and wavenet_dtype(x.double()) == torch.float64
            assert torch.is_autocast_enabled("cpu")
    assert wavenet_dtype(x) == torch.float32
    with pytest.raises(KeyError), torch.autocast("cpu", torch.bfloat16), arithmetic(CPU):
        raise KeyError
    assert wavenet_dtype(x) == torch.float32


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_inference_mode_is_off_inside_and_gradients_as_before(mode: Callable) -> None:
    with mode():
        before, x = torch.is_grad_enabled(), torch.ones(2)
        with arithmetic(CPU):
            assert torch.is_grad_enabled() == before and not torch.is_inference_mode_enabled()
            assert not torch.ones(1).is_inference() and not usable(x).is_inference()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert torch.is_grad_enabled() and torch.equal(usable(x), x)
    assert usable(y := torch.ones(1)) is y


def test_a_method_runs_inside_on_its_objects_device(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            entered.append(self.device)

        def __exit__(self, *_: object) -> None:
            entered.append(None)

    class Model:
        device = torch.device("cuda", 1)

        @own_arithmetic
        def method(self, x: int, y: int = 2) -> tuple[int, bool]:
            """Do it."""
            return x + y, entered[-1] == self.device

    assert Model().method.__doc__ == "Do it."
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", Device)
    assert Model().method(1, y=3) == (4, True)
    assert entered == [Model.device, None]


def test_full_precision_forgets_what_autocast_asked_for() -> None:
    with torch.autocast("cpu", torch.bfloat16), arithmetic(CPU):
        with full_precision(), arithmetic(CPU):
            assert wavenet_dtype(torch.ones(1)) == torch.float32
        assert wavenet_dtype(torch.ones(1)) == torch.bfloat16


def test_devices_without_autocast() -> None:
    with arithmetic(torch.device("meta")):
        assert wavenet_dtype(torch.ones(1, device="meta")) == torch.float32
    network = FloWaveNet(n_mels=4, n_block=2, n_flow=2, filter_size=8, upsample_scales=(2, 4)).to("meta")
    assert network.inverse(torch.ones(1, 1, 40, device="meta"), torch.ones(1, 4, 5, device="meta")).shape == (1, 1, 40)


def test_exact_products_are_those_of_float64() -> None:
    a, b = torch.randn(50, 300), torch.randn(300, 40)
    with torch.autocast("cpu", torch.bfloat16):
        got = exact_product(a, b)
    assert got.dtype == torch.float32 and torch.equal(got, (a.double() @ b.double()).float())
