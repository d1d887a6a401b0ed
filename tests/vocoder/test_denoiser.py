"""Constant tones: measured, and taken out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.denoiser import Denoiser, constant_tones

FS, HOP = 8000, 64


class Humming(AbsVocoder):
    """A vocoder whose every output holds a tone at fs / 16."""

    def __init__(self) -> None:
        super().__init__(FS, HOP, 2)

    def loss(self, wav: Tensor, feats: Tensor, wav_lengths: Tensor, feats_lengths: Tensor) -> None:
        """Not trained."""

    def inference(self, feats: Tensor, temperature: float = 1.0, seed: int = 0, noise: Tensor | None = None) -> Tensor:
        """Return the tone, and noise as loud as the temperature says."""
        size = len(feats) * HOP
        tone = 0.01 * torch.sin(2 * math.pi / 16 * torch.arange(size))
        return tone + temperature * 0.1 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_tones_are_measured_where_they_are() -> None:
    wav = Humming().inference(torch.zeros(300, 2), temperature=0.1)
    tones = constant_tones(wav, 32)
    assert tones.shape == (15,) and tones.argmax() == 1  # fs / 16 is the second multiple of fs / 32
    assert tones[1] > 15 and tones[[0, 2, 5, 9, 14]].abs().max() < 8
    with pytest.raises(ValueError, match="100 samples .* 512"):
        constant_tones(torch.zeros(100), 32)


def test_the_constant_tone_goes_and_the_rest_stays() -> None:
    made = Humming()
    denoiser = Denoiser(made)
    wav = made.inference(torch.zeros(300, 2), temperature=0.1)
    assert denoiser(wav, 0.0) is wav
    clean = denoiser(wav, 1.0)
    assert clean.shape == wav.shape
    assert constant_tones(clean, 32)[1] < constant_tones(wav, 32)[1] - 6
    other = torch.sin(2 * math.pi * 0.21 * torch.arange(len(wav)))
    torch.testing.assert_close(denoiser(other, 1.0)[500:-500], other[500:-500], rtol=0, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 300, 4097])
def test_any_length_stays(samples: int) -> None:
    wav = torch.randn(samples)
    out = Denoiser(Humming())(wav, 1e-9)
    torch.testing.assert_close(out, wav, rtol=0, atol=1e-5)


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        Denoiser(Humming())(torch.zeros(1000), -1.0)
