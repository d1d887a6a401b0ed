"""The inverse of the prediction for exported models is the prediction's own."""

from __future__ import annotations

import pytest
import torch

from flowavenet_plugin.flow import exported_prediction
from flowavenet_plugin.flow.prediction import LinearPrediction

SIZES = [(4, 16, 9), (8, 16, 1), (8, 16, 2), (3, 15, 4), (20, 48, 3)]  # order, hop_length, frames
CASES = [(loop, *sizes) for loop in ("scripted_loop", "scanning_loop") for sizes in SIZES]


# A single block, which leaves none for the loop, is there for odd hops only, and those torch.export has no use for.
@pytest.mark.parametrize("loop, order, hop_length, frames", [*CASES, ("scripted_loop", 3, 15, 1)])
@torch.no_grad()
def test_inverse(loop: str, order: int, hop_length: int, frames: int) -> None:
    torch.manual_seed(0)
    prediction = LinearPrediction(22050, hop_length, 6, order)
    torch.nn.init.normal_(prediction.out.weight, std=0.02)
    residual, feats, cond = torch.randn(frames * hop_length), torch.randn(frames, 6), torch.randn(frames, 6)
    expected = prediction.inverse(residual[None], feats[None], cond[None])[0]
    got = exported_prediction.inverse(prediction, residual, feats, cond, getattr(exported_prediction, loop))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
