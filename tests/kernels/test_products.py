"""Compiled products with panels against torch, and the prepared matrix with and without them."""

from __future__ import annotations

import pytest
import torch

from flowavenet_plugin.kernels.products import Matrix, panels, panels_shape
from flowavenet_plugin.kernels.scratch import Scratch


@pytest.mark.parametrize(("dtype", "far"), [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(0, 4, 3), (1, 2, 1), (7, 34, 130), (800, 96, 64), (13, 2500, 70)]
)
@pytest.mark.usefixtures("way", "threads")
def test_products_are_torchs(dtype: torch.dtype, far: float, rows: int, inner: int, columns: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(rows, 2 * inner).to(dtype)[:, inner:]  # rows that lie apart
    weight = (torch.randn(inner, columns) / inner**0.5).to(dtype)
    bias, other = torch.randn(columns).to(dtype), torch.randn(rows, columns + 3).to(dtype)[:, 1:-2]
    exact = x.double() @ weight.double()
    close = dict(rtol=far / 10, atol=far)
    for matrix in (Matrix(weight), Matrix(weight.t().contiguous().t(), Scratch(), "name")):
        for bias_, other_, alpha, factor, relu in (
            (None, None, 1, 1, False),
            (None, None, -2, 1, False),
            (bias, None, 1, 1, True),
            (None, other, 1, -0.5, True),
            (bias, other, 0.5, -0.5, False),
        ):
            added = (0 if bias_ is None else bias.double()) + (0 if other_ is None else factor * other.double())
            expected = (alpha * exact + added).relu() if relu else alpha * exact + added
            room = torch.full((rows, columns + 2), 7.0, dtype=dtype)
            matrix.multiply(x, room[:, :-2], bias_, other_, alpha, factor, relu)
            torch.testing.assert_close(room[:, :-2].double(), expected, **close)
            assert (room[:, -2:] == 7).all()
    for bias_ in (None, bias):
        summed = other.clone().contiguous()
        matrix.multiply(x, summed, bias_, summed, factor=2)
        expected = exact + 2 * other.double() + (0 if bias_ is None else bias.double())
        torch.testing.assert_close(summed.double(), expected, **close)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_panels_hold_each_value_once(dtype: torch.dtype) -> None:
    weight = torch.arange(1, 2 * 20 * 70 + 1).view(2, 20, 70).float().to(dtype)
    made = panels(weight, torch.empty(panels_shape(20, 70, dtype, 2), dtype=dtype))
    expected = torch.cat([weight.flatten(), torch.zeros(made.numel() - weight.numel(), dtype=dtype)])
    assert torch.equal(made.flatten().sort().values, expected.sort().values)
