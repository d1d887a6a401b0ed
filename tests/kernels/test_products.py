"""Compiled products with panels against torch, and the prepared matrix with and without them."""

from __future__ import annotations

import pytest
import torch

from flowavenet_plugin.flow.prepared.matrices import Matrix
from flowavenet_plugin.kernels import compiled
from flowavenet_plugin.kernels.products import panel_product, panels

needs_compiler = pytest.mark.skipif(compiled.functions() is None, reason="no C compiler (cc), or FLOWAVENET_FUSED=0")
TYPES = [(torch.float32, 1e-4), (torch.bfloat16, 0.06)]


@needs_compiler
@pytest.mark.parametrize(("dtype", "far"), TYPES)
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 2, 1), (7, 34, 130), (800, 96, 64), (13, 2500, 70)])
@pytest.mark.parametrize("threads", [1, 3])
def test_products_are_torchs(dtype: torch.dtype, far: float, rows: int, inner: int, columns: int, threads: int) -> None:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    x = torch.randn(rows, 2 * inner).to(dtype)[:, inner:]  # rows that lie apart
    weight = (torch.randn(inner, columns) / inner**0.5).to(dtype)
    bias, other = torch.randn(columns).to(dtype), torch.randn(rows, columns + 3).to(dtype)[:, 1:-2]
    exact = x.double() @ weight.double()
    for bias_, other_, factor, relu in ((None, None, 1, False), (bias, None, 1, True), (bias, other, -0.5, False)):
        expected = exact + (0 if bias_ is None else bias.double()) + (0 if other_ is None else factor * other.double())
        expected = expected.relu() if relu else expected
        room = torch.full((rows, columns + 2), 7.0, dtype=dtype)
        panel_product(x, panels(weight), room[:, :-2], bias_, other_, factor, relu)
        torch.testing.assert_close(room[:, :-2].double(), expected, rtol=far / 10, atol=far)
        assert (room[:, -2:] == 7).all()
    summed = other.clone().contiguous()
    panel_product(x, panels(weight), summed, None, summed)
    torch.testing.assert_close(summed.double(), exact + other.double(), rtol=far / 10, atol=far)
    torch.set_num_threads(before)


@needs_compiler
def test_which_matrices_have_panels() -> None:
    assert panels(torch.zeros(3, 4).double()) is None and panels(torch.zeros(3, 4).bfloat16()) is None
    assert panels(torch.zeros(4, 3).bfloat16()).shape[:2] == (1, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 2])
def test_matrices_are_products_with_what_is_added(dtype: torch.dtype, batch: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(6, 5).to(dtype), torch.randn(5).to(dtype)
    x, other, matrix = torch.randn(batch, 9, 6).to(dtype), torch.randn(batch, 9, 5).to(dtype), Matrix(weight)
    exact = x.double() @ weight.double()
    close = dict(rtol=0.02, atol=0.05) if dtype == torch.bfloat16 else dict(rtol=1e-5, atol=1e-5)
    for options, added in (
        ({}, 0),
        (dict(bias=bias), bias.double()),
        (dict(bias=bias, other=other, factor=0.5), bias.double() + 0.5 * other.double()),
        (dict(other=other), other.double()),
    ):
        for relu in (False, True):
            out = torch.full((batch, 9, 5), float("nan"), dtype=dtype)
            expected = (exact + added).relu() if relu else exact + added
            torch.testing.assert_close(matrix(x, out, **options, relu=relu).double(), expected, **close)
    own = other.clone()
    torch.testing.assert_close(
        matrix(x, own, bias, own, 2.0).double(), exact + bias.double() + 2 * other.double(), **close
    )
    own = other.clone()
    torch.testing.assert_close(matrix(x, own, other=own).double(), exact + other.double(), **close)
