"""Compiled functions over random sizes, layouts and numbers of threads: right against float64, or refused."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.kernels import fused, weight_norm, winograd
from flowavenet_plugin.kernels.products import Matrix, panels, panels_shape, thin_product
from flowavenet_plugin.kernels.scratch import Scratch

F32, BF16 = torch.float32, torch.bfloat16
#: Of values around 1.
FAR = {F32: 2e-5, BF16: 0.04}
CASES = 40


def laid_out(value: Tensor, how: str) -> Tensor:
    """Return a matrix of the same values that lies otherwise in memory."""
    count, width = value.shape
    if how == "dense":
        return value.clone()
    if how == "apart":  # rows with others' values between them
        return torch.cat([value, torch.full_like(value, 7.0)], dim=1)[:, :width]
    if how == "odd":  # the same, with an odd number of values from row to row, and an odd place
        return F.pad(value, (1, 2 + width % 2), value=7.0)[:, 1 : width + 1]
    if how == "columns":
        return value.t().contiguous().t()
    if how == "scattered":
        return value.repeat_interleave(2, dim=1)[:, ::2]
    strides = {"single row": (5, 1), "single column": (1, 5)}[how]  # strides that say nothing
    return value.clone().as_strided(value.shape, strides) if 1 in value.shape else value.clone()


LAYOUTS = ("dense", "apart", "odd", "columns", "scattered")


def single(value: Tensor) -> Tensor:
    """Return the same with any stride along sizes of 1, which torch calls contiguous all the same."""
    strides = [13 if size == 1 else stride for size, stride in zip(value.shape, value.stride(), strict=True)]
    return value.as_strided(value.shape, strides)


def numbers(*shape: int, dtype: torch.dtype = F32) -> Tensor:
    return torch.randn(shape, dtype=F32).to(dtype)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=FAR[dtype], atol=scale * FAR[dtype])


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_products_of_any_layout(dtype: torch.dtype, way: str, threads: int) -> None:
    choose = random.Random(0)
    torch.manual_seed(0)
    for case in range(CASES):
        count, inner, columns = (choose.choice(sizes) for sizes in ([1, 2, 7, 50], [1, 2, 8, 34], [1, 3, 64, 70]))
        weight = (numbers(inner, columns) / inner**0.5).to(dtype)
        x, other = numbers(count, inner, dtype=dtype), numbers(count, columns, dtype=dtype)
        bias, alpha, factor = numbers(columns, dtype=dtype), choose.choice([1.0, -0.7]), choose.choice([1.0, 0.5])
        hows = [choose.choice(LAYOUTS) for _ in range(4)]
        matrix = Matrix(laid_out(weight, hows[0]))
        out = laid_out(numbers(count, columns, dtype=dtype), choose.choice(["dense", "apart", "odd"]))
        given = [laid_out(x, hows[1]), laid_out(other, hows[2])]
        out, *given = [single(value) for value in (out, *given)] if case % 2 else (out, *given)
        bias_, other_ = (value if choose.random() < 0.5 else None for value in (bias, given[1]))
        matrix.multiply(given[0], out, bias_, other_, alpha, factor)
        expected = alpha * x.double() @ weight.double()
        expected += 0 if bias_ is None else bias.double()
        expected += 0 if other_ is None else factor * other.double()
        close(out, expected, dtype, 2)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_rows_that_are_all_the_same_are_added(dtype: torch.dtype, instructions: str) -> None:
    x, row, weight = numbers(5, 4, dtype=dtype), numbers(1, 6, dtype=dtype), numbers(4, 6, dtype=dtype)
    out = Matrix(weight).multiply(x, torch.empty(5, 6, dtype=dtype), other=row.expand(5, 6))
    close(out, x.double() @ weight.double() + row.double(), dtype, 3)
    single_row = Matrix(weight).multiply(x[:1], torch.empty(1, 6, dtype=dtype), other=row.as_strided((1, 6), (0, 1)))
    close(single_row, x[:1].double() @ weight.double() + row.double(), dtype, 3)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_panels_of_any_layout_are_the_same(dtype: torch.dtype, instructions: str) -> None:
    choose = random.Random(1)
    for _ in range(CASES):
        planes, inner, out = choose.choice([1, 3]), choose.choice([2, 6, 34]), choose.choice([1, 5, 70])
        weight = numbers(planes, inner, out, dtype=dtype)
        made = [
            panels(own, torch.empty(panels_shape(inner, out, dtype, planes), dtype=dtype))
            for own in (
                weight,
                single(weight),
                weight.transpose(1, 2).contiguous().transpose(1, 2),
                weight.transpose(0, 2).contiguous().transpose(0, 2),
                weight.repeat_interleave(2, dim=2)[:, :, ::2],
                weight.repeat_interleave(2, dim=1)[:, ::2],
            )
        ]
        assert all(torch.equal(own, made[0]) for own in made)


def test_thin_products_of_any_layout(way: str) -> None:
    choose = random.Random(2)
    torch.manual_seed(0)
    for case in range(CASES):
        count, inner, out = choose.choice([1, 2, 30]), choose.choice([1, 8, 90]), choose.choice([1, 5, 64])
        x, weight = numbers(count, inner), numbers(out, inner) / inner**0.5
        given = [laid_out(x, choose.choice(LAYOUTS)), laid_out(weight, choose.choice(["dense", "columns"]))]
        given = [single(value) for value in given] if case % 2 else given
        close(thin_product(*given), x.double() @ weight.double().t(), F32, 2)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_gates_of_any_size(dtype: torch.dtype, instructions: str, threads: int) -> None:
    choose = random.Random(3)
    torch.manual_seed(0)
    for _ in range(CASES):
        count, width, more = choose.choice([0, 1, 2, 33]), choose.choice([1, 3, 16, 70]), choose.choice([0, 2])
        pre, bias = numbers(count + more, 2 * width, dtype=dtype), numbers(2 * width, dtype=dtype)
        grad = numbers(count, width, dtype=dtype)
        a, b = (pre[:count].double() + bias.double()).sigmoid().chunk(2, dim=1)
        sigmoids, gate = single(pre.clone()), single(torch.empty(count, width, dtype=dtype))
        fused.gate(sigmoids, bias, gate)
        close(gate, b - 2 * a * b, dtype)
        close(sigmoids[:count], torch.cat([a, b], dim=1), dtype)
        out = torch.full((count + more, 2 * width), 7.0, dtype=dtype)
        sums = fused.gate_gradients(single(grad), gate, sigmoids[:count], out)
        expected = torch.cat([-2 * b * a * (1 - a), (1 - 2 * a) * b * (1 - b)], dim=1) * grad.double().repeat(1, 2)
        close(out[:count], expected, dtype)
        close(sums, expected.sum(dim=0), dtype, 1 + count)
        assert sums.dtype == F32 and (out[count:] == 7).all()


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_first_and_last_products_of_any_size(dtype: torch.dtype, instructions: str, threads: int) -> None:
    choose = random.Random(4)
    torch.manual_seed(0)
    for _ in range(CASES):
        count, stride, size = choose.choice([1, 2, 33]), choose.choice([1, 2, 5]), choose.choice([1, 3, 10])
        width, columns = choose.choice([1, 16, 300]), choose.choice([1, 4])
        x = numbers((count - 1) * stride + size + choose.choice([0, 3]))
        weight, bias = numbers(size, width) / size**0.5, numbers(width)
        out = fused.front(x, stride, weight, bias, single(torch.empty(count, width, dtype=dtype)))
        expected = (x.double().unfold(0, size, stride)[:count] @ weight.double() + bias.double()).relu()
        close(out, expected, dtype, 2)
        last, last_bias = numbers(columns, width) / width**0.5, numbers(columns)
        made = fused.end(out, single(last), last_bias, single(torch.empty(count, columns)))
        close(made, out.double() @ last.double().t() + last_bias.double(), F32, 4)


def test_what_is_no_number_stays_none(instructions: str) -> None:
    x = torch.tensor([1.0, float("nan")])
    for dtype in (F32, BF16):
        out = fused.front(x, 1, torch.ones(1, 20), torch.zeros(20), torch.empty(2, 20, dtype=dtype))
        assert out[0].eq(1).all() and out[1].isnan().all()
        nan = torch.tensor([[0.0, float("nan")]], dtype=dtype)
        product = Matrix(torch.ones(2, 20, dtype=dtype)).multiply(nan, torch.empty(1, 20, dtype=dtype), relu=True)
        assert product.isnan().all()
        gate = torch.empty(1, 1, dtype=dtype)
        fused.gate(nan.clone(), torch.zeros(2, dtype=dtype), gate)
        assert gate.isnan().all()


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_convolutions_of_any_size(dtype: torch.dtype, instructions: str, threads: int) -> None:
    choose = random.Random(5)
    torch.manual_seed(0)
    for _ in range(CASES):
        dilation, tiles, width, inner = choose.choice([1, 2, 5]), choose.choice([1, 3]), choose.choice([1, 16, 33]), 2
        inner *= choose.choice([1, 8, 35])
        whole = winograd.TILE * dilation * tiles
        count, more = choose.randint(1, whole), choose.choice([0, 4])
        taps, bias = numbers(3, 2 * width, inner) / (3 * inner) ** 0.5, numbers(2 * width, dtype=dtype)
        h, pre = numbers(whole + 2 * dilation + more, inner, dtype=dtype), numbers(count + more, 2 * width, dtype=dtype)
        shape = winograd.gate_panels_shape(2 * width, inner, dtype)
        made = winograd.gate_panels(winograd.transformed(taps), torch.empty(shape, dtype=dtype))
        out = single(torch.empty(count, width, dtype=dtype))
        winograd.convolve(made, single(h), tiles, dilation, single(pre), bias, out, Scratch())
        sums = F.conv1d(h.double().t()[None], taps.double().permute(1, 2, 0), dilation=dilation)[0].t()[:count]
        a, b = (sums + pre[:count].double() + bias.double()).sigmoid().chunk(2, dim=1)
        close(out, b - 2 * a * b, dtype, 1.5)


@pytest.mark.parametrize("dtype", [F32, torch.float64])
def test_gradients_of_convolutions_of_any_layout(dtype: torch.dtype, way: str, threads: int) -> None:
    choose = random.Random(6)
    torch.manual_seed(0)
    for _ in range(CASES // 2):
        dilation, tiles, out, inner = choose.choice([1, 3]), choose.choice([1, 4]), choose.choice([1, 20]), 7
        count = winograd.TILE * dilation * tiles
        taps = numbers(3, out, inner).to(dtype)
        exact = [taps.double(), numbers(count + 2 * dilation, inner).double()]
        exact = [value.detach().clone().requires_grad_() for value in exact]
        made = F.conv1d(exact[1].t()[None], exact[0].permute(1, 2, 0), dilation=dilation)[0].t()
        grad = numbers(*made.shape)
        made.backward(grad.double())
        convolution = winograd.WinogradConvolution(winograd.transformed(taps), dilation)
        how = choose.choice(LAYOUTS)
        h, given = laid_out(exact[1].detach().to(dtype), how), laid_out(grad.to(dtype), choose.choice(LAYOUTS))
        grad_h, grad_weight = laid_out(torch.zeros_like(h), how), torch.empty_like(convolution.weight)
        grad_h.zero_()
        convolution.backward(given, h, 0, grad_h, grad_weight, Scratch())
        for found, expected in ((grad_h, exact[1].grad), (convolution.taps_gradient(grad_weight), exact[0].grad)):
            torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_norms_of_any_size(instructions: str, threads: int) -> None:
    choose = random.Random(7)
    torch.manual_seed(0)
    for _ in range(CASES):
        n, m = choose.choice([1, 2, 40]), choose.choice([1, 3, 100])
        v, g, grad = numbers(n, m, 3), numbers(n, 1), numbers(n, 3 * m)
        wanted = [v.flatten(1).double().requires_grad_(), g.double().requires_grad_()]
        weight = wanted[0] * (wanted[1] / wanted[0].norm(dim=1, keepdim=True))
        weight.backward(grad.double())
        out, grad_v = single(torch.empty(n, 3 * m)), grad.clone()
        weight_norm.normalise(single(v.flatten(1)), single(g), out)
        close(out, weight.detach(), F32)
        close(weight_norm.normalise_backward(grad_v, v.flatten(1), single(g)), wanted[1].grad, F32, 20)
        close(grad_v, wanted[0].grad, F32, 20)
        planes = torch.empty(winograd.PLANES, n, m)
        winograd.transformed_normalised(single(v), single(g), planes)
        close(planes, winograd.transformed(weight.detach().view(n, m, 3).permute(2, 0, 1)), F32, 5)


def refused() -> list[tuple[str, Callable[[], object]]]:
    """What C would compute wrong numbers of."""
    x, weight, bias = torch.ones(4, 6), torch.ones(6, 8), torch.ones(8)
    matrix, out = Matrix(weight), torch.empty(4, 8)
    half = [value.bfloat16() for value in (x, weight, bias, out)]
    pre, gate = torch.ones(4, 16), torch.empty(4, 8)
    v, g = torch.ones(5, 6, 3), torch.ones(5, 1)
    shape = winograd.gate_panels_shape(16, 6, F32)
    made, h = torch.empty(shape), torch.ones(16, 6)

    def convolve(**other: object) -> Tensor:
        given = dict(panels=made, h=h, tiles=1, dilation=2, pre=torch.ones(12, 16), bias=torch.ones(16))
        return winograd.convolve(**{**given, "out": torch.empty(12, 8), "scratch": Scratch(), **other})

    return [
        ("out", lambda: matrix.multiply(x, out.t().contiguous().t())),
        ("out", lambda: matrix.multiply(x, torch.empty(1, 8).expand(4, 8))),
        ("out", lambda: matrix.multiply(x, half[3])),
        ("out", lambda: matrix.multiply(x, torch.empty(3, 8))),
        ("x", lambda: matrix.multiply(half[0], out)),
        ("x", lambda: matrix.multiply(torch.ones(4, 5), out)),
        ("x", lambda: matrix.multiply(torch.ones(4, 6, device="meta"), out)),
        ("bias", lambda: matrix.multiply(x, out, bias=torch.ones(16)[::2])),
        ("bias", lambda: matrix.multiply(x, out, bias=half[2])),
        ("other", lambda: matrix.multiply(x, out, other=torch.ones(4, 9))),
        ("room", lambda: panels(weight[None], torch.empty(3))),
        ("pre", lambda: fused.gate(pre.t().contiguous().t(), torch.ones(16), gate)),
        ("pre", lambda: fused.gate(pre[:3], torch.ones(16), gate)),
        ("bias", lambda: fused.gate(pre, torch.ones(16).bfloat16(), gate)),
        ("out", lambda: fused.gate(pre, torch.ones(16), gate.double())),
        ("sigmoids", lambda: fused.gate_gradients(gate, gate, torch.ones(4, 8), pre)),
        ("gate", lambda: fused.gate_gradients(gate, gate.bfloat16(), pre, pre)),
        ("x", lambda: fused.front(torch.ones(8), 2, torch.ones(3, 8), bias, out)),
        ("x", lambda: fused.front(torch.ones(9).double(), 2, torch.ones(3, 8), bias, out)),
        ("out", lambda: fused.end(gate, torch.ones(3, 8), torch.ones(3), torch.empty(4, 3).double())),
        ("weight", lambda: fused.end(gate, torch.ones(8, 3).t(), torch.ones(3), torch.empty(4, 3))),
        ("g", lambda: weight_norm.normalise(v.flatten(1), torch.ones(4, 1), v.flatten(1).clone())),
        ("grad", lambda: weight_norm.normalise_backward(torch.ones(5, 17), v.flatten(1), g)),
        ("v", lambda: winograd.transformed_normalised(v.double(), g, torch.empty(8, 5, 6))),
        ("out", lambda: winograd.transformed_normalised(v, g, torch.empty(6, 5, 6))),
        ("out", lambda: winograd.normalised_gradients(torch.ones(8, 5, 6), v, g, torch.ones(5, 6, 2))),
        ("room", lambda: winograd.gate_panels(torch.ones(8, 16, 6), torch.empty(3))),
        ("weight", lambda: winograd.gate_panels(torch.ones(8, 16, 6).double(), made)),
        ("inputs", lambda: convolve(h=torch.ones(15, 6))),
        ("inputs", lambda: convolve(h=h.bfloat16())),
        ("pre", lambda: convolve(pre=torch.ones(11, 16))),
        ("bias", lambda: convolve(bias=torch.ones(8))),
        ("panels", lambda: convolve(panels=made.transpose(2, 3).contiguous().transpose(2, 3))),
    ]


def test_what_c_would_misread_is_refused(instructions: str) -> None:
    for name, call in refused():
        with pytest.raises(ValueError, match=rf"compiled functions can't take {name}: torch\.\w+ \("):
            call()
    with pytest.raises(ValueError, match="1 tiles with dilation 2 have fewer than 13 rows"):
        winograd.convolve(torch.empty(1, 8, 6, 1), torch.empty(0), 1, 2, *[torch.empty(13, 8)] * 3, Scratch())
    with pytest.raises(ValueError, match="float64"):
        panels(torch.ones(1, 4, 4).double(), torch.ones(3))
    with pytest.raises(ValueError, match="3 to 4"):
        winograd.gate_panels(torch.ones(8, 4, 3), torch.ones(3, dtype=BF16))
