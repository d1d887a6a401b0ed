"""Addresses for C: of tensors that have the type, shape and layout that was asked for."""

from __future__ import annotations

import pytest
import torch

from flowavenet_plugin.kernels.arguments import beginning, dense, rows, strided, with_dense_rows

F32 = torch.float32


def test_addresses_are_of_what_was_asked_for() -> None:
    x = torch.randn(6, 4)
    assert dense("x", x, F32, 6, 4) == beginning("x", x, F32, 3, 4) == strided("x", x, F32, 6, 4) == x.data_ptr()
    assert rows("x", x[:, 1:], F32, 6, 3) == (x.data_ptr() + 4, 4)
    assert rows("x", x[:1].as_strided((1, 4), (13, 1)), F32, 1, 4) == (x.data_ptr(), 4)
    assert rows("x", x.t()[:1].t(), F32, 6, 1) == (x.data_ptr(), 4)
    assert rows("x", x[:1].expand(6, 4), F32, 6, 4) == (x.data_ptr(), 0)
    with pytest.raises(ValueError, match=r"can't take x: torch.float32 \(6, 4\), strides \(0, 1\), on cpu; it must be"):
        rows("x", x[:1].expand(6, 4), F32, 6, 4, written=True)
    with pytest.raises(ValueError, match="or more rows"):
        beginning("x", x, F32, 7, 4)
    assert with_dense_rows(x[:, 1:]).data_ptr() == x.data_ptr() + 4
    half = x.bfloat16()
    assert with_dense_rows(half, pairs=True).data_ptr() == half.data_ptr()
    for odd in (half[:, 1:3], half[:, :3].t()):
        copy = with_dense_rows(odd, pairs=True)
        assert copy.data_ptr() != odd.data_ptr() and copy.is_contiguous() and torch.equal(copy, odd)
