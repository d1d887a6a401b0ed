"""The voice in the box: small, loads by one line, speaks, and says what it is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.evaluation.metrics import log_spectral_distance

ROOT = Path(__file__).resolve().parents[2]
VOICE = ROOT / "egs" / "voice" / "voc1" / "voice.zip"
#: Never trained on, see the card.
HELD_OUT = ROOT / "egs" / "mini" / "voc1" / "corpus" / "flac" / "MINI-0024.flac"

pytestmark = pytest.mark.skipif(not VOICE.is_file(), reason=f"this checkout has no {VOICE.name}")


def test_it_is_small_and_its_card_names_the_data() -> None:
    assert VOICE.stat().st_size < 25e6
    with zipfile.ZipFile(VOICE) as archive:
        card = archive.read("README.md").decode()
    assert all(
        word in card for word in ("Kerstin", "CC0", "LJ001-0001 to LJ001-0020", "Never trained on", "Limits", "| eval")
    )
    assert sum(parameter.numel() for parameter in load_vocoder(VOICE).parameters()) < 8e6


def test_it_speaks_a_clip_that_it_never_heard() -> None:
    vocoder = load_vocoder(VOICE)
    wav, fs = soundfile.read(HELD_OUT, dtype="float32")
    _, feats = extract(build_feats_extract(vocoder.feats_extract, vocoder.feats_extract_conf), wav, fs, "MINI-0024")
    spoken = vocoder.inference(torch.from_numpy(feats), seed=0)
    assert spoken.shape == (len(feats) * 256,) and vocoder.fs == fs
    spoken = spoken[: len(wav)].numpy()
    assert 0.5 < spoken.std() / wav.std() < 2 and np.abs(spoken).max() < 1.5
    # White noise as loud as the speech, moment by moment, and silence: what a vocoder that learnt nothing might say.
    loudness = np.sqrt(np.convolve(wav**2, np.ones(512) / 512, "same"))
    noise = loudness * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)
    distance = log_spectral_distance(wav, spoken, fs)
    assert distance < 0.6 * log_spectral_distance(wav, noise, fs)
    assert distance < 0.6 * log_spectral_distance(wav, np.zeros_like(wav), fs)
