"""STFT, mel and back, for every setting of features; and that iterations bring the mel nearer."""

from __future__ import annotations

import inspect
import math

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

import spoken
from flowavenet_plugin.data.features import FEATS_EXTRACTORS, build_feats_extract
from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis
from flowavenet_plugin.vocoder.inversion.mel_bands import exponents, interpolation, mel_filters, tilt
from flowavenet_plugin.vocoder.inversion.refinement import log_mel_error, refine
from flowavenet_plugin.vocoder.inversion.settings import DEFAULTS, feature_settings

#: (type, settings): rates, hops that divide the window and such that don't, windows, ranges and logarithms.
SETTINGS = [
    ("fbank", dict(fs=22050, n_fft=1024, hop_length=256, n_mels=80, fmin=80, fmax=7600)),
    ("fbank", dict(fs=16000, n_fft=512, hop_length=200, win_length=500, n_mels=40, fmin=0, fmax=None, log_base=None)),
    ("fbank", dict(fs=24000, n_fft=2048, hop_length=300, win_length=1200, n_mels=80, fmin=80, fmax=7600)),
    ("fbank", dict(fs=8000, n_fft=256, hop_length=64, n_mels=40, fmin=0, fmax=4000, htk=True, log_base=2.0)),
    ("fbank", dict(fs=16000, n_fft=400, hop_length=160, n_mels=80, fmin=0, fmax=8000, window="hamming")),
    ("fbank", dict(fs=44100, n_fft=2048, hop_length=512, n_mels=128, fmin=40, fmax=16000)),
    ("original", dict(fs=22050, n_fft=1024, hop_length=256, n_mels=80, fmin=125, fmax=7600)),
    ("original", dict(fs=16000, n_fft=800, hop_length=200, n_mels=40, fmin=None, fmax=None)),
]
each_setting = pytest.mark.parametrize("kind, conf", SETTINGS, ids=[f"{kind}-{conf['fs']}" for kind, conf in SETTINGS])


def case(kind: str, conf: dict) -> tuple[FeatureAnalysis, Tensor, Tensor]:
    """Return the analysis, the clip padded to whole frames (1, samples), and its features (1, frames, n_mels)."""
    settings, wav, feats = spoken.features(kind, **conf)
    size = len(feats) * settings["hop_length"]
    padded = np.pad(wav, (0, size - len(wav)))
    return (
        FeatureAnalysis(feature_settings(kind, settings)),
        torch.from_numpy(padded)[None],
        torch.from_numpy(feats)[None],
    )


def noise_of(wav: Tensor) -> Tensor:
    """White noise of the same power, the same each time."""
    return wav.std() * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))


def test_defaults_are_those_of_the_extractors() -> None:
    for kind, extractor in FEATS_EXTRACTORS.items():
        parameters = inspect.signature(extractor.__init__).parameters.items()
        assert DEFAULTS[kind] == {name: value.default for name, value in parameters if name != "self"}


@each_setting
def test_filters_are_librosas(kind: str, conf: dict) -> None:
    settings = feature_settings(kind, conf)
    names = dict(sr="fs", n_fft="n_fft", n_mels="n_mels", fmin="fmin", fmax="fmax", htk="htk")
    expected = librosa.filters.mel(**{key: getattr(settings, name) for key, name in names.items()}, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(settings).numpy(), expected, atol=1e-12)


@each_setting
def test_log_mel_is_the_extractors(kind: str, conf: dict) -> None:
    analysis, wav, _ = case(kind, conf)
    expected, _ = build_feats_extract(kind, conf)(wav)  # of the padded clip
    layout = analysis.layout([wav.shape[1] // analysis.hop_length])
    found = analysis.log_mel(analysis.spectrum(wav, layout))
    expected = analysis.target(expected)[:, : found.shape[1]]
    inner = slice(0, -(analysis.n_fft // analysis.hop_length) - 1)  # the extractor's last frame mirrors elsewhere
    torch.testing.assert_close(found[:, inner], expected[:, inner], rtol=0, atol=2e-3)


@each_setting
def test_a_spectrum_of_a_waveform_gives_it_back(kind: str, conf: dict) -> None:
    analysis, wav, feats = case(kind, conf)
    layout = analysis.layout([feats.shape[1]])
    again = analysis.waveform(analysis.spectrum(wav, layout), layout)
    torch.testing.assert_close(again, wav, rtol=0, atol=1e-5)
    # And no other waveform's spectrum is nearer to any spectrum: the remainder is orthogonal to all of them.
    spectrum = analysis.spectrum(wav, layout) * torch.rand(1, feats.shape[1], analysis.n_fft // 2 + 1)
    rest = analysis.waveform(spectrum - analysis.spectrum(analysis.waveform(spectrum, layout), layout), layout)
    inner = slice(analysis.n_fft, -analysis.n_fft)  # the ends are mirrored, which counts twice there
    assert rest[:, inner].abs().max() < 1e-5


@each_setting
def test_iterations_bring_the_mel_nearer(kind: str, conf: dict) -> None:
    analysis, wav, feats = case(kind, conf)
    layout = analysis.layout([feats.shape[1]])
    start = noise_of(wav)
    errors = [
        float(log_mel_error(analysis, refine(analysis, start, feats, n, layout), feats, layout))
        for n in (0, 4, 8, 16, 32)
    ]
    assert all(later < earlier for earlier, later in zip(errors, errors[1:], strict=False)), errors
    assert errors[-1] < min(1.0, 0.1 * errors[0]), errors


def test_what_has_the_right_mel_stays() -> None:
    analysis, wav, feats = case(*SETTINGS[0])
    layout = analysis.layout([feats.shape[1]])
    feats = analysis.log_mel(analysis.spectrum(wav, layout)) / math.log(10)
    torch.testing.assert_close(refine(analysis, wav, feats, 8, layout), wav, rtol=0, atol=1e-4)


def test_no_iteration_changes_nothing_and_silence_is_no_trouble() -> None:
    analysis, wav, feats = case(*SETTINGS[0])
    layout = analysis.layout([feats.shape[1]])
    assert refine(analysis, wav, feats, 0, layout) is wav
    quiet = refine(analysis, noise_of(wav), torch.full_like(feats, -10.0), 32, layout)
    quietest = analysis.log_mel(analysis.spectrum(0 * quiet, layout))
    assert torch.isfinite(quiet).all()
    found = analysis.log_mel(analysis.spectrum(quiet, layout))
    # What lies above the bands is not told and stays; near it the window smears it into the last ones.
    torch.testing.assert_close(found[..., :60], quietest[..., :60], rtol=0, atol=0.1)
    assert not refine(analysis, torch.zeros_like(wav), feats, 4, layout).any()  # nothing comes of nothing


@each_setting
def test_the_ends_of_the_range(kind: str, conf: dict) -> None:
    settings = feature_settings(kind, conf)
    weights, between, fall = exponents(settings), interpolation(settings), tilt(settings)
    assert (weights >= 0).all() and (weights.sum(dim=0) <= 1 + 1e-9).all()
    torch.testing.assert_close(between.sum(dim=0), torch.ones_like(between[0]))
    hertz = torch.arange(settings.n_fft // 2 + 1) * settings.fs / settings.n_fft
    above = hertz > settings.fmax
    assert not weights[:, above].any() and (fall[above] < 0).all()
    inside = (hertz >= settings.fmin) & ~above
    assert (fall[inside].abs() < 1e-6).all() and (fall[hertz < settings.fmin] < 0).all()
    empty = mel_filters(settings).sum(dim=1) == 0
    assert not weights[empty].any()


def test_a_batch_is_refined_as_each_alone() -> None:
    analysis, wav, feats = case(*SETTINGS[3])
    frames = [feats.shape[1], 9, 1]
    starts = [noise_of(wav)[:, : count * analysis.hop_length] for count in frames]
    padded = torch.nn.utils.rnn.pad_sequence([start[0] for start in starts], batch_first=True)
    many = torch.nn.utils.rnn.pad_sequence([feats[0, :count] for count in frames], batch_first=True)
    layout = analysis.layout(frames)
    together = refine(analysis, padded, many, 5, layout)
    errors = log_mel_error(analysis, together, many, layout)
    for item, (start, count) in enumerate(zip(starts, frames, strict=True)):
        own = analysis.layout([count])
        alone = refine(analysis, start, feats[:, :count], 5, own)
        torch.testing.assert_close(together[item, : alone.shape[1]], alone[0], rtol=0, atol=1e-5)
        assert not together[item, alone.shape[1] :].any()
        torch.testing.assert_close(
            errors[item], log_mel_error(analysis, alone, feats[:, :count], own)[0], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(
    "kind, conf, message",
    [
        ("lpc", {}, "unknown feature type 'lpc'; there are: fbank, original"),
        ("fbank", dict(center=False), "center False isn't supported"),
        ("fbank", dict(hop_length=600), "must overlap by half at least, but hop_length is 600"),
        ("fbank", dict(fmax=9000), "fmax 9000 Hz"),
        ("fbank", dict(log_base=1.0), "log_base must be above 1"),
        ("fbank", dict(window="boxcar"), "torch has no boxcar_window"),
        ("fbank", dict(n_mels=0), "n_mels must be a positive whole number, not 0"),
        ("fbank", dict(win_length=2000), "win_length 2000 is longer than n_fft 1024"),
        ("original", dict(log_base=10.0), "has no setting log_base"),
    ],
)
def test_settings_that_cannot_be_inverted_are_refused(kind: str, conf: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        feature_settings(kind, conf)
