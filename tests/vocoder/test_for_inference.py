"""A vocoder that keeps only what sound needs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import tiny_voice
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.loading import save_vocoder


@pytest.fixture
def voice(tmp_path: Path) -> FloWaveNetVocoder:
    """Return a small vocoder, loaded."""
    return load_vocoder(tiny_voice.make_voice(tmp_path))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_sound_stays_and_the_weights_go(voice: FloWaveNetVocoder, dtype: torch.dtype | None) -> None:
    feats = torch.randn(20, 6)
    expected = voice.inference(feats, seed=1, dtype=dtype)
    voice.for_inference(dtype)
    assert not any(parameter.numel() for parameter in voice.flow.blocks.parameters())
    assert torch.equal(voice.inference(feats, seed=1), expected)
    tolerance = dict(rtol=0, atol=1e-4 if dtype is None else 1e-2)
    torch.testing.assert_close(torch.cat(list(voice.stream([feats], seed=1))), expected, **tolerance)
    torch.testing.assert_close(voice.inference_batch([feats, feats[:3]], seeds=[1, 2])[0], expected, **tolerance)
    voice.for_inference(dtype)
    assert torch.equal(copy.deepcopy(voice).inference(feats, seed=1), expected)


def test_what_needs_the_weights_is_refused(voice: FloWaveNetVocoder, tmp_path: Path) -> None:
    voice.for_inference()
    feats = torch.randn(3, 6)
    for attempt in (
        lambda: voice.train(),
        lambda: voice.log_likelihood(torch.zeros(96), feats),
        lambda: save_vocoder(voice, {}, tmp_path / "again"),
    ):
        with pytest.raises(ValueError, match="inference only"):
            attempt()
    assert not (tmp_path / "again" / "model.pth").exists()
    with pytest.raises(ValueError, match="float32 only, not in torch.bfloat16"):
        voice.inference(feats, dtype=torch.bfloat16)
    assert not voice.training and voice.inference(feats).shape == (96,)


@torch.no_grad()
def test_weights_that_blocks_share_are_folded_in_all(voice: FloWaveNetVocoder) -> None:
    flow = voice.flow
    flow.blocks[1].steps[1].coupling = flow.blocks[1].steps[0].coupling
    flow.blocks[1].steps[0].actnorm.loc = flow.blocks[1].steps[1].actnorm.loc
    noise, cond = torch.randn(1, 1, 64), torch.randn(1, 6, 2)
    expected = PreparedFlow(flow).inverse(noise, cond)
    assert torch.equal(PreparedFlow(flow, release=True).inverse(noise, cond), expected)
