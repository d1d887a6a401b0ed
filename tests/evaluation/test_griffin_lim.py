"""Griffin-Lim from features that the recipe extracts."""

from __future__ import annotations

import numpy as np
import pytest

from flowavenet_plugin.data.features import build_feats_extract, extract, full_settings
from flowavenet_plugin.evaluation.griffin_lim import GriffinLim

FS = 16000


def harmonics() -> np.ndarray:
    time = np.arange(FS) / FS
    return sum(0.05 * np.sin(2 * np.pi * 200 * k * time + k) for k in range(1, 20)).astype(np.float32)


@pytest.mark.parametrize(
    "kind, more", [("fbank", {}), ("original", {}), ("fbank", dict(window=None)), ("fbank", dict(normalized=True))]
)
def test_features_of_the_result_are_those_it_was_made_of(kind: str, more: dict) -> None:
    settings = full_settings(kind, dict(fs=FS, **more))
    extractor = build_feats_extract(kind, settings)
    _, feats = extract(extractor, harmonics(), FS, "utt")
    wav = GriffinLim(kind, settings)(feats)
    assert wav.shape == (len(feats) * 256,) and wav.dtype == np.float32
    _, again = extract(extractor, wav, FS, "utt")
    inner = slice(5, -5)
    loud = feats[inner] > np.median(feats)
    error = np.abs(again[: len(feats)][inner] - feats[inner])[loud].mean()
    assert error < 0.25 * np.abs(feats[inner] - np.median(feats))[loud].mean()


def test_the_same_seed_gives_the_same_sound_and_another_does_not() -> None:
    settings = full_settings("fbank", dict(fs=FS))
    _, feats = extract(build_feats_extract("fbank", settings), harmonics(), FS, "utt")
    first = GriffinLim("fbank", settings, seed=1)(feats)
    np.testing.assert_array_equal(first, GriffinLim("fbank", settings, seed=1)(feats))
    assert np.abs(first - GriffinLim("fbank", settings, seed=2)(feats)).max() > 1e-3


def test_magnitudes_equal_those_of_espnet2() -> None:
    from espnet2.utils.griffin_lim import logmel2linear

    settings = full_settings("fbank", dict(fs=FS))
    feats = np.random.default_rng(0).normal(size=(7, 80)) - 2.0
    expected = logmel2linear(feats, FS, 1024, 80, 80, 7600)
    np.testing.assert_allclose(GriffinLim("fbank", settings).magnitudes(feats), expected, atol=1e-9)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown feature type 'lpc'"):
        GriffinLim("lpc", {})
