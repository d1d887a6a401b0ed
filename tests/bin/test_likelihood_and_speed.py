"""What the model itself contributes to the scores, against computations that know nothing of it."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import scipy
import soundfile
import torch

import tiny_corpus
from flowavenet_plugin.bin import evaluate, vocoder_inference
from flowavenet_plugin.data.scp import read_scp
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from tiny_voice import make_voice

FS, HOP, FRAMES = 8000, 8, 12


def test_log_likelihood_is_the_density_that_the_jacobian_gives(tmp_path: Path) -> None:
    """Change of variables: ln p(x) = ln N(f(x)) + ln |det df/dx|, with the whole Jacobian by autograd, in float64."""
    torch.manual_seed(0)
    sizes = dict(n_block=2, n_flow=2, n_layer=2, filter_size=4, block_per_split=1, upsample_scales=(2, 4))
    vocoder = FloWaveNetVocoder(fs=FS, hop_length=HOP, n_mels=5, **sizes).eval()
    for parameter in vocoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    fine = copy.deepcopy(vocoder).double()
    feats = np.random.default_rng(0).normal(size=(FRAMES, 5)).astype(np.float32)
    wav = 0.3 * np.random.default_rng(1).normal(size=FRAMES * HOP).astype(np.float32)
    soundfile.write(tmp_path / "utt1.wav", wav, FS, subtype="FLOAT")
    kaldiio.save_ark(str(tmp_path / "feats.ark"), {"utt1": feats}, scp=str(tmp_path / "feats.scp"))
    natural, samples = {"utt1": str(tmp_path / "utt1.wav")}, {"utt1": len(wav)}
    found = evaluate.measure_likelihoods(vocoder, natural, tmp_path / "feats.scp", samples, "cpu")

    cond = fine.normalize(torch.from_numpy(feats).double()).T[None]

    def flow(x: torch.Tensor) -> torch.Tensor:
        return fine.flow(x[None, None], cond)[0][0, 0]

    x = torch.from_numpy(wav).double()
    _, log_determinant = np.linalg.slogdet(torch.autograd.functional.jacobian(flow, x).numpy())
    nats = (scipy.stats.norm.logpdf(flow(x).detach().numpy()).sum() + log_determinant) / len(wav)
    assert found["utt1"] == pytest.approx(nats, abs=1e-5)
    assert abs(log_determinant) > 1.0
    columns = {column.name: column.values["utt1"] for column in evaluate.likelihood_columns(found)}
    assert columns["log_likelihood"] == found["utt1"]
    assert columns["log_likelihood_bits"] == pytest.approx(found["utt1"] * math.log2(math.e), rel=1e-12)


def test_real_time_factor_is_seconds_of_work_per_second_of_speech(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own: synthesis takes 3 s there, whatever is synthesised, and all else takes none."""
    corpus = tiny_corpus.make_corpus(tmp_path / "data", n_utts=2)
    make_voice(tmp_path / "exp")
    now = [100.0]

    def three_seconds(*arguments: object, **options: object) -> object:
        now[0] += 3.0
        return real(*arguments, **options)

    real = FloWaveNetVocoder.inference
    monkeypatch.setattr(FloWaveNetVocoder, "inference", three_seconds)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    model = next((tmp_path / "exp").glob("*.pth"))
    vocoder_inference.main([f"--scp={corpus}/feats.scp", f"--model_file={model}", f"--output_dir={tmp_path / 'out'}"])
    factors = read_scp(tmp_path / "out/utt2rtf")
    assert len(factors) == 2
    for utt, factor in factors.items():
        info = soundfile.info(tmp_path / f"out/wav/{utt}.wav")
        assert float(factor) == pytest.approx(3.0 / (info.frames / info.samplerate), abs=1e-6)
