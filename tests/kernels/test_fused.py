"""Compiled gates, and first and last products, against torch."""

from __future__ import annotations

import pytest
import torch

from flowavenet_plugin.kernels import fused

pytestmark = pytest.mark.usefixtures("instructions")


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_gates_keep_their_sigmoids(dtype: torch.dtype, far: float) -> None:
    torch.manual_seed(0)
    pre, bias = torch.randn(21, 600).to(dtype), torch.randn(600).to(dtype)
    a, b = (pre.float() + bias.float()).sigmoid().chunk(2, dim=1)
    out = torch.full((20, 300), float("nan"), dtype=dtype)
    sigmoids = pre.clone()
    fused.gate(sigmoids, bias, out)
    torch.testing.assert_close(out.float(), (b - 2 * a * b)[:20], rtol=0, atol=far)
    torch.testing.assert_close(sigmoids[:20].float(), torch.cat([a, b], dim=1)[:20], rtol=0, atol=far)
    assert torch.equal(sigmoids[20:], pre[20:])


def test_sigmoids_far_out() -> None:
    pre, out = torch.linspace(-200, 200, 4000).view(2000, 2), torch.empty(2000, 1)
    a, b = torch.sigmoid(pre).unbind(1)
    fused.gate(pre, torch.zeros(2), out)
    torch.testing.assert_close(out[:, 0], b - 2 * a * b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("rows", [1, 21])
def test_gradients_of_gates_are_autograds(dtype: torch.dtype, far: float, rows: int) -> None:
    torch.manual_seed(0)
    pre, grad = torch.randn(rows, 2 * 300, requires_grad=True), torch.randn(rows, 300).to(dtype)
    a, b = pre.sigmoid().chunk(2, dim=1)
    u = b - 2 * a * b
    u.backward(grad.float())
    sigmoids, out = torch.cat([a, b], dim=1).detach().to(dtype), torch.full((rows + 1, 600), 7.0, dtype=dtype)
    sums = fused.gate_gradients(grad, u.detach().to(dtype), sigmoids, out)
    torch.testing.assert_close(out[:rows].float(), pre.grad, rtol=far, atol=far)
    torch.testing.assert_close(sums, pre.grad.sum(dim=0), rtol=far, atol=10 * far)
    assert (out[rows:] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_front_is_a_product_of_windows(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(40), torch.randn(6, 300), torch.randn(300)
    out = fused.front(x, 2, weight, bias, torch.empty(18, 300, dtype=dtype))
    torch.testing.assert_close(out, (x.unfold(0, 6, 2) @ weight + bias).relu().to(dtype), rtol=1e-2, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_end_is_a_product_with_few_columns(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(21, 37).to(dtype), torch.randn(3, 37), torch.randn(3)
    out = fused.end(x, weight, bias, torch.empty(21, 3))
    torch.testing.assert_close(out, x.float() @ weight.t() + bias, rtol=1e-5, atol=1e-5)
