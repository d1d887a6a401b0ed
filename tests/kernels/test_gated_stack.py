"""The stack on rows against the WaveNet module: prediction and every gradient; weight normalisation; the layout."""

from __future__ import annotations

import pytest
import torch

from flowavenet_plugin.flow.wavenet import WaveNet
from flowavenet_plugin.kernels import gated_stack_backward, stack_parameters, stack_weights
from flowavenet_plugin.kernels.gated_stack import Span, forward
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_shape import StackShape
from flowavenet_plugin.kernels.stack_weights import StackWeights
from flowavenet_plugin.kernels.weight_norm import normalise, normalise_backward


@pytest.mark.parametrize("fewer", [False, True])
@pytest.mark.parametrize("piece", [6, 24, 1024])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        dict(n_layer=1, kernel_size=1),
        dict(n_layer=2, kernel_size=3),
        dict(n_layer=3, kernel_size=5),
        dict(n_layer=2, kernel_size=2, causal=True),
        dict(n_layer=4, kernel_size=3, causal=True),  # reaches further than the input is long
    ],
)
def test_prediction_and_gradients_are_the_modules(
    options: dict, batch: int, piece: int, fewer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (stack_parameters, stack_weights):
        monkeypatch.setattr(module, "PIECE", piece)
        monkeypatch.setattr(module, "MANY_ROWS", 0 if fewer else 1000)
    torch.manual_seed(0)
    net = WaveNet(3, 4, 6, filter_size=8, **options).double()
    for parameter in net.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    columns = torch.ones(batch, 1, 9).double()
    columns[1:, :, 6:] = 0
    mask = columns if batch > 1 else None
    x = (torch.randn(batch, 3, 9).double() * columns).requires_grad_()
    cond = torch.randn(batch, 6, 9).double().requires_grad_()
    weights_of_outputs = torch.randn(batch, 4, 9).double() * columns
    expected = net(x, cond, mask) * columns
    parameters = net.stack_parameters()
    expected_grads = torch.autograd.grad(expected, [x, cond, *parameters], weights_of_outputs)

    with torch.no_grad():
        shape = StackShape(**{"kernel_size": 3, "causal": False, **options})
        rows, scratch = Rows.of(x, shape.widest, mask), Scratch()
        weights = StackWeights.of(shape, parameters, torch.float64, scratch, len(rows.pack(x)))
        cond_rows, size = rows.pack(cond), len(rows.pack(x))
        grad_cond = torch.zeros_like(cond_rows)
        left = shape.front_left
        padded = torch.nn.functional.pad(rows.pack(x), (0, 0, left, 2 - left))
        given = padded, lambda start, end: [cond_rows[start:end]], Span(0, size, size, -left), rows, scratch
        dropped = forward(weights, *given)
        out, kept = forward(weights, *given, keep=True)
        assert torch.equal(dropped[0], out) and dropped[1] is None
        grad_x, grads = gated_stack_backward.backward(
            rows.pack(weights_of_outputs), cond_rows, grad_cond, kept, weights, rows, scratch
        )
        ours = [rows.unpack(grad_x), rows.unpack(grad_cond), *grads.to_parameters(weights, parameters, scratch.memory)]
    torch.testing.assert_close(rows.unpack(out) * columns, expected.detach())
    for one, other in zip(ours, expected_grads, strict=True):
        shape_mask = columns if one is ours[0] else 1.0
        torch.testing.assert_close(one * shape_mask, other * shape_mask)


def test_weight_normalisation_is_torchs() -> None:
    torch.manual_seed(0)
    v, g = torch.randn(700, 900).double().requires_grad_(), torch.randn(700, 1).double().requires_grad_()
    expected = torch._weight_norm(v, g, 0)
    grad = torch.randn_like(expected)
    out = torch.empty_like(v)
    with torch.no_grad():
        normalise(v, g, out)
        ours = [grad.clone()]
        ours.append(normalise_backward(ours[0], v, g))
    torch.testing.assert_close(out, expected.detach())
    for one, other in zip(ours, torch.autograd.grad(expected, [v, g], grad), strict=True):
        torch.testing.assert_close(one, other)


def test_rows_have_zeros_between_items_and_come_back() -> None:
    x = torch.arange(1.0, 13.0).view(2, 2, 3)
    rows = Rows.of(x, 2)
    packed = rows.pack(x)
    assert packed.tolist() == [[1, 4], [2, 5], [3, 6], [0, 0], [0, 0], [7, 10], [8, 11], [9, 12], [0, 0], [0, 0]]
    assert torch.equal(rows.unpack(packed), x)
    assert rows.clear(packed + 1).sum() == (x + 1).sum()
    assert rows.sum_items(packed).tolist() == x.sum(dim=(1, 2)).tolist()
    one = Rows.of(x[:1], 2)
    assert one.gap == 0 and one.pack(x[:1]).tolist() == x[0].t().tolist()
    laid = x[:1].transpose(1, 2).contiguous().transpose(1, 2)
    assert one.pack(laid).data_ptr() == laid.data_ptr()  # no copy of rows that are there


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("gap", [0, 2])
def test_what_a_row_holds_lies_beside_each_other(batch: int, channels: int, length: int, gap: int) -> None:
    x = torch.randn(batch, channels, length)
    swapped = torch.cat(x.transpose(1, 2).contiguous().transpose(1, 2).chunk(2, dim=1)[::-1], dim=1)
    turned = torch.randn(channels, length, batch).permute(2, 0, 1)
    for own in (x, x.transpose(1, 2).contiguous().transpose(1, 2), swapped, turned):
        packed = Rows.of(own, gap).pack(own)
        assert packed.is_contiguous() and (channels == 1 or packed.stride(1) == 1)
        assert torch.equal(Rows.of(own, gap).unpack(packed), own)
