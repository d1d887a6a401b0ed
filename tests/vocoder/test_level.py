"""Features at another level than in training: normalised ones are refused, far ones are reported."""

from __future__ import annotations

import pytest
import torch

from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.level import check_level
from flowavenet_plugin.vocoder.seeds import noise_seed

MEAN, STD = torch.linspace(-1.2, -2.6, 20), torch.linspace(0.5, 0.9, 20)


def vocoder(with_stats: bool = True) -> FloWaveNetVocoder:
    made = FloWaveNetVocoder(22050, 4, 20, n_block=1, n_flow=1, n_layer=1, filter_size=2, upsample_scales=(2, 2))
    if with_stats:
        made.set_feats_stats(MEAN, STD)
    return made


def normal(frames: int = 200) -> torch.Tensor:
    return torch.randn(frames, 20, generator=torch.Generator().manual_seed(0))


def test_training_features_pass() -> None:
    assert check_level(vocoder(), normal() * STD + MEAN) is None
    assert check_level(vocoder(), (normal() * STD + MEAN) + 0.3) is None  # a louder recording


def test_normalised_features_are_refused() -> None:
    with pytest.raises(ValueError, match="normalised.*denorm/feats.scp"):
        check_level(vocoder(), normal())


def test_the_mean_that_a_poor_acoustic_model_predicts_is_refused_too() -> None:
    made = vocoder()
    made.set_feats_stats(MEAN, STD / 2)  # zero is far outside of what was seen in training
    with pytest.raises(ValueError, match="normalised"):
        check_level(made, 0.1 * normal())
    assert check_level(made, 0.1 * normal() + 2 * MEAN) is not None  # far off, but not at zero


def test_features_of_another_logarithm_are_refused_and_of_another_level_reported() -> None:
    with pytest.raises(ValueError, match="lies from -10 to inf: they are of another type or logarithm"):
        check_level(vocoder(), (normal() * STD + MEAN) * 2.302585 - 6)  # natural logarithm for log10
    warning = check_level(vocoder(), normal() * STD + MEAN - 4 * STD)
    assert warning is not None and "standard deviations" in warning and "-1.90" in warning


def test_a_vocoder_without_statistics_cannot_tell() -> None:
    assert check_level(vocoder(with_stats=False), normal()) is None


def test_noise_seeds_follow_seed_and_features() -> None:
    feats = normal()
    assert noise_seed(1, feats) == noise_seed(1, feats.double()) == noise_seed(1, feats.T.contiguous().T)
    assert noise_seed(1, feats) != noise_seed(2, feats)
    assert noise_seed(1, feats) != noise_seed(1, feats + 1e-6)
