"""A vocoder goes through a pickle, as to processes that are spawned: the same sound, weights and settings only."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import spoken
import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin import make_mel_inversion
from tiny_voice import make_voice


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("voices")
    model = make_voice(folder)
    command = ["--config", str(folder / "config.yaml"), "--outpath", str(folder / "mel.zip"), "--iterations", "2"]
    make_mel_inversion.main(command)
    return {"voice": model, "mel_inversion": folder / "mel.zip"}


@pytest.mark.parametrize("kind", ["voice", "refined", "mel_inversion"])
def test_a_pickle_makes_the_same_sound(files: dict[str, Path], kind: str) -> None:
    feats = torch.from_numpy(spoken.features("fbank", **tiny_corpus.FEATS_CONF)[2])[:8]
    vocoder = load_vocoder(files["voice"], refine=1) if kind == "refined" else load_vocoder(files[kind])
    vocoder.temperature, vocoder.checks = 0.5, False
    small = len(pickle.dumps(vocoder))
    expected = vocoder.inference(feats, seed=1)
    written = pickle.dumps(vocoder)
    assert len(written) == small  # what was folded, and tables, stay out of it
    state = torch.get_rng_state()
    again = pickle.loads(written)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(again) is type(vocoder) and not again.training and not again.checks and again.temperature == 0.5
    assert again.feats_extract_conf == vocoder.feats_extract_conf and again.inference(feats, seed=1).equal(expected)
    assert copy.deepcopy(vocoder).inference(feats, seed=1).equal(expected)


def test_another_process_makes_the_same_sound(files: dict[str, Path], tmp_path: Path) -> None:
    feats, vocoder = spoken.features("fbank", **tiny_corpus.FEATS_CONF)[2][:8], load_vocoder(files["voice"])
    (tmp_path / "voice").write_bytes(pickle.dumps(vocoder))
    np.save(tmp_path / "feats.npy", feats)
    code = (
        "import pickle, sys, numpy\n"
        "voice = pickle.load(open(sys.argv[1], 'rb'))\n"
        "numpy.save(sys.argv[2], voice.inference(numpy.load(sys.argv[2]), seed=1).numpy())"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "voice", tmp_path / "feats.npy"], check=True)
    found = torch.from_numpy(np.load(tmp_path / "feats.npy"))
    torch.testing.assert_close(found, vocoder.inference(feats, seed=1), rtol=0, atol=1e-5)


def test_a_vocoder_in_training_stays_one_and_folded_weights_are_refused(files: dict[str, Path]) -> None:
    vocoder = load_vocoder(files["voice"]).double().train()
    again = pickle.loads(pickle.dumps(vocoder))
    assert again.training and again.feats_mean.dtype == torch.float64
    assert all(parameter.requires_grad for parameter in again.parameters())
    vocoder = vocoder.eval()
    vocoder.for_inference()
    with pytest.raises(ValueError, match="for inference only now: it has no weights to pickle"):
        pickle.dumps(vocoder)
    assert copy.deepcopy(vocoder) is not vocoder
