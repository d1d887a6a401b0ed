"""The predictors of opinion scores: what they say of speech and noise, and that they are asked once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from flowavenet_plugin.evaluation import mos
from flowavenet_plugin.evaluation.scores import METRICS, score, usable_metrics
from flowavenet_plugin.evaluation.speech import Speech

CLIP = Path(__file__).parents[2] / "egs/mini/voc1/corpus/flac/MINI-0024.flac"
FS = 22050
NAMES = {"distillmos": ("distillmos",), "speechmos": ("dnsmos", "dnsmos_p808")}


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """Two seconds of synthesised speech at 22,050 Hz."""
    return librosa.load(CLIP, sr=FS, duration=2.0)[0]


@pytest.fixture
def fresh() -> Iterator[None]:
    """The networks are loaded anew, for this test alone."""
    mos._dnsmos.cache_clear()
    yield
    mos._dnsmos.cache_clear()


def figures(wav: np.ndarray, package: str, fs: int = FS) -> dict[str, float]:
    """What the metrics of a package say of a sound."""
    pytest.importorskip(package, reason=f"{package} isn't installed")
    wanted = [metric for metric in usable_metrics(fs)[0] if metric.package == package]
    if not wanted:
        pytest.skip(f"{package} is there, but not what it imports")
    speech = Speech(wav, fs)
    return score(speech, speech, wanted)


@pytest.mark.parametrize("package", NAMES)
def test_speech_is_better_than_noisy_speech_and_that_than_noise(clip: np.ndarray, package: str) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=len(clip)).astype(np.float32)
    clean, noisy, hiss = (figures(wav, package) for wav in (clip, clip + 0.3 * noise, noise))
    assert tuple(clean) == NAMES[package]
    for name in NAMES[package]:
        assert 5.0 >= clean[name] > noisy[name] + 0.1 and clean[name] > hiss[name] + 0.5 and hiss[name] >= 1.0, name


def test_distillmos_is_that_of_the_package(clip: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    """At 16 kHz, where nothing is resampled; 9 s are three windows, which are heard one by one here."""
    package = pytest.importorskip("distillmos", reason="distillmos isn't installed")
    wav = np.tile(librosa.resample(clip, orig_sr=FS, target_sr=16000), 5)[: 9 * 16000]
    value = figures(wav, "distillmos", 16000)["distillmos"]
    assert capsys.readouterr().out == ""  # it would say where its weights are
    model = package.ConvTransformerSQAModel(segmenting_in_forward=False).eval()
    starts = [0, (9 * 16000 - 122880) // 2, 9 * 16000 - 122880]
    with torch.inference_mode():
        windows = [float(model(torch.from_numpy(wav[start : start + 122880])[None])) for start in starts]
    assert value == pytest.approx(np.mean(windows), abs=1e-3)


def test_dnsmos_is_that_of_the_package(clip: np.ndarray) -> None:
    package = pytest.importorskip("speechmos.dnsmos", reason="speechmos isn't installed")
    wav = 4.0 * librosa.resample(clip, orig_sr=FS, target_sr=16000)
    assert abs(wav).max() > 1  # clipped, where the package would refuse it
    value = figures(wav, "speechmos", 16000)
    theirs = package.run(np.clip(wav, -1, 1), 16000)
    assert value == pytest.approx({"dnsmos": theirs["ovrl_mos"], "dnsmos_p808": theirs["p808_mos"]}, abs=1e-4)


def test_the_runtime_takes_as_many_threads_as_torch(fresh: None) -> None:
    pytest.importorskip("speechmos.dnsmos", reason="speechmos or what it imports isn't installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = mos._dnsmos().onnx_sess.get_session_options()
    finally:
        torch.set_num_threads(before)
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(("predict", "network"), [(mos.distill_mos, "_distillmos"), (mos.dnsmos, "_dnsmos")])
def test_the_same_sound_is_heard_once_and_silence_never(
    clip: np.ndarray, monkeypatch: pytest.MonkeyPatch, predict: object, network: str
) -> None:
    """A sweep scores the natural speech with each of its temperatures."""
    heard = []

    def listen(wav: object, *options: object) -> object:
        heard.append(wav)
        return torch.tensor([[3.0]]) if network == "_distillmos" else {"ovrl_mos": 3.0, "p808_mos": 4.0}

    monkeypatch.setattr(mos, network, lambda: listen)
    wav = clip + np.float32(1e-4)  # not heard by another test
    expected = 3.0 if network == "_distillmos" else (3.0, 4.0)
    assert predict(wav) == predict(wav.copy()) == expected and len(heard) == 1
    assert predict(wav[:-1]) == expected and len(heard) == 2
    silence = predict(np.zeros(16000, dtype=np.float32))
    assert np.isnan(silence).all() and len(heard) == 2


def test_who_hears_alone_has_no_use_for_natural_speech(clip: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so natural speech has a figure, too: itself in the place of the synthesised."""
    monkeypatch.setattr(mos, "distill_mos", lambda wav: float(len(wav)))
    monkeypatch.setattr(mos, "dnsmos", lambda wav: (2.0, float(np.abs(wav).max())))
    alone = [metric for metric in METRICS if metric.alone]
    assert [metric.name for metric in alone] == ["distillmos", "dnsmos", "dnsmos_p808"]
    natural, other = Speech(clip, FS), Speech(0.5 * clip, FS)
    seconds = len(clip) / FS
    assert score(natural, other, alone)["distillmos"] == pytest.approx(16000 * seconds, abs=1)
    assert score(natural, natural, alone)["dnsmos_p808"] == pytest.approx(
        2 * score(natural, other, alone)["dnsmos_p808"]
    )
    assert math.isclose(score(natural, other, alone)["dnsmos"], 2.0)
