"""A refined voice is handled like any other: precision, settings, saving, packing, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flowavenet_plugin.bin import make_mel_inversion
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.denoiser import Denoiser
from flowavenet_plugin.vocoder.loading import load_vocoder, read_config, save_vocoder
from tiny_recipe import Recipe
from tiny_voice import make_voice


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_voice(tmp_path / "exp")


@pytest.fixture
def inversion(model: Path, tmp_path: Path) -> AbsVocoder:
    """Return a vocoder without a network, for the same features."""
    out = tmp_path / "inversion.zip"
    make_mel_inversion.main(["--config", str(model.parent / "config.yaml"), "--outpath", str(out), "--iterations", "3"])
    return load_vocoder(out, check=False)  # its features are random


def feats_of(vocoder: AbsVocoder, frames: int = 40) -> torch.Tensor:
    noise = torch.randn(frames, vocoder.n_mels, generator=torch.Generator().manual_seed(1))
    return vocoder.feats_mean.float() + 0.5 * noise


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision(model: Path, dtype: torch.dtype) -> None:
    refined = load_vocoder(model, refine=3)
    feats = feats_of(refined)
    wav = refined.inference(feats, seed=0)
    other = copy.deepcopy(refined).to(dtype)
    assert other.inference(feats, seed=0).dtype == dtype
    assert all(piece.dtype == dtype for piece in other.stream(iter([feats]), seed=0))
    assert torch.equal(refined.inference(feats, seed=0), wav)  # the copy's tables are its own


def test_tables_keep_their_precision(inversion: AbsVocoder) -> None:
    """Weights that went through bfloat16 are rounded, and there are none here."""
    feats = feats_of(inversion)
    wav = inversion.inference(feats, seed=0)
    there_and_back = copy.deepcopy(inversion).to(torch.bfloat16).float()
    torch.testing.assert_close(there_and_back.inference(feats, seed=0), wav)


def test_settings_are_the_vocoders(model: Path) -> None:
    plain, refined = load_vocoder(model), load_vocoder(model, refine=2)
    feats = feats_of(plain)
    default = refined.inference(feats, seed=0)
    for vocoder in (plain, refined):
        vocoder.temperature = 0.1
    assert refined.vocoder.temperature == 0.1 and not torch.allclose(refined.inference(feats, seed=0), default)
    moved = copy.deepcopy(refined).to(torch.float64).float()
    moved.set_feats_stats(torch.full((plain.n_mels,), -3.0), torch.full((plain.n_mels,), 2.0))
    assert torch.equal(moved.feats_mean, moved.vocoder.feats_mean) and moved.feats_mean[0] == -3.0


def test_it_is_saved_as_the_plain_one(model: Path, tmp_path: Path) -> None:
    plain, refined = load_vocoder(model), load_vocoder(model, refine=2)
    assert list(refined.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(refined.state_dict())
    refined.load_state_dict(plain.state_dict())
    saved = save_vocoder(refined, read_config(model.parent / "config.yaml"), tmp_path / "saved")
    feats = feats_of(plain)
    assert torch.equal(load_vocoder(saved).inference(feats, seed=0), plain.inference(feats, seed=0))


def test_impossible_numbers_are_the_callers(model: Path) -> None:
    assert load_vocoder(model, refine=np.int64(2)).refine == 2
    for value in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match=r"\Arefine: the number of iterations"):
            load_vocoder(model, refine=value)


def test_no_denoiser(model: Path, inversion: AbsVocoder) -> None:
    for vocoder in (load_vocoder(model, refine=2), inversion):
        with pytest.raises(ValueError, match="no constant tones"):
            Denoiser(vocoder)


@pytest.mark.parametrize("kind", ["inversion", "refined", "plain"])
def test_look_ahead_is_what_a_stream_waits_for(model: Path, inversion: AbsVocoder, kind: str) -> None:
    vocoder = inversion if kind == "inversion" else load_vocoder(model, refine=2 if kind == "refined" else 0)
    arrived = []

    def source() -> object:
        for frame in feats_of(vocoder, 200):
            arrived.append(1)
            yield frame[None]

    next(vocoder.stream(source(), seed=0, chunk_frames=1))
    # A network's first piece may be less than a frame, and refinement begins with whole ones.
    assert len(arrived) - vocoder.look_ahead in ((1, 2) if kind == "refined" else (1,))


def test_scores_and_packs_tell_refined_sound(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path)
    recipe.decode("--refine", "2")
    recipe.score()
    assert json.loads((recipe.out / "scoring/scores.json").read_text())["settings"]["refine"] == 2
    assert "sound with 2 refinements, the packed voice has 0" in recipe.refused("pack")
    recipe.decode("--refine", "0")
    recipe.score()
    recipe.pack()
