"""The pitch that a mel-spectrogram tells, and the pulses made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spoken
from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis
from flowavenet_plugin.vocoder.inversion.pitch import BAND, PitchReader, low_divisor
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.inversion.source import at_samples, pulses, shaped

CONF = dict(fs=22050, n_fft=1024, hop_length=256, n_mels=80, fmin=80, fmax=7600)


@pytest.mark.parametrize(
    "kind, conf",
    [
        ("fbank", CONF),
        ("fbank", dict(CONF, fs=16000, hop_length=200, win_length=800)),
        ("fbank", dict(CONF, fs=24000, n_fft=2048, hop_length=300, win_length=1200)),
        ("original", dict(CONF, fmin=125)),
    ],
)
@pytest.mark.parametrize("low, high", [(110.0, 150.0), (320.0, 240.0)])
def test_the_pitch_of_a_voice_is_read(kind: str, conf: dict, low: float, high: float) -> None:
    from flowavenet_plugin.data.features import build_feats_extract, extract

    wav, pitch = spoken.clip(conf["fs"], 0.5, low, high)
    feats = torch.from_numpy(extract(build_feats_extract(kind, conf), wav, conf["fs"], "clip")[1])[None]
    reader = PitchReader(feature_settings(kind, conf))
    noise = torch.randn(1, feats.shape[1] * reader.hop_length, generator=torch.Generator().manual_seed(1))
    hertz, voiced = (part[0].numpy() for part in reader(feats, [feats.shape[1]], noise))
    expected = pitch[np.minimum(np.arange(len(hertz)) * conf["hop_length"], len(pitch) - 1)]
    inner = slice(3, int(0.6 * len(hertz)))  # well inside the voiced part
    # Where the bands hardly tell the harmonics apart, part of a low voice may be taken for noise.
    assert voiced[inner].mean() > (0.9 if low > 200 else 0.6)
    heard = voiced[inner] > 0
    assert np.median(np.abs(np.log2(hertz[inner] / expected[inner]))[heard]) < 0.04  # half a semitone
    assert voiced[int(0.75 * len(voiced)) :].mean() < 0.3  # noise, and the pause


def test_noise_and_silence_have_no_pitch() -> None:
    reader = PitchReader(feature_settings("fbank", CONF))
    noise = torch.randn(1, 40 * reader.hop_length, generator=torch.Generator().manual_seed(1))
    for level in (-1.0, -10.0):
        pitch = reader(torch.full((1, 40, 80), level), [40], noise)
        assert pitch.voiced.mean() < 0.2 and torch.isfinite(pitch.hertz).all() and (pitch.hertz > 0).all()


def test_items_of_a_batch_have_their_own_pitch() -> None:
    _, _, feats = spoken.features("fbank", **CONF)
    feats, reader = torch.from_numpy(feats), PitchReader(feature_settings("fbank", CONF))
    frames = [len(feats), 12]
    noise = torch.randn(1, len(feats) * reader.hop_length, generator=torch.Generator().manual_seed(1)).expand(2, -1)
    many = torch.nn.utils.rnn.pad_sequence([feats, feats[:12]], batch_first=True)
    both = reader(many, frames, noise)
    for item, count in enumerate(frames):
        alone = reader(feats[None, :count], [count], noise[:1, : count * reader.hop_length])
        torch.testing.assert_close(both.hertz[item, :count], alone.hertz[0], rtol=1e-4, atol=0)
        assert both.voiced[item, :count].equal(alone.voiced[0])
        assert all((part[item, count:] == part[item, count - 1]).all() for part in both)  # padding goes on as it ends


@pytest.mark.parametrize(
    "fs, hop, n_fft", [(22050, 256, 1024), (48000, 600, 2400), (8000, 50, 200), (16000, 275, 1100)]
)
def test_the_low_rate_divides_all_sizes(fs: int, hop: int, n_fft: int) -> None:
    settings = feature_settings("fbank", dict(fs=fs, hop_length=hop, n_fft=n_fft, fmin=0, fmax=fs / 2))
    divisor = low_divisor(settings)
    assert hop % divisor == 0 and n_fft % (2 * divisor) == 0
    assert divisor == 1 or fs / divisor / 2 >= 1.25 * BAND[1]
    low = FeatureAnalysis(settings, divisor)
    assert low.bands <= settings.n_mels and low.fs == fs / divisor


def test_pulses_have_all_harmonics_and_unit_power() -> None:
    fs, hertz = 16000, 160.0
    sound, periods = pulses(torch.full((1, fs), hertz, dtype=torch.float64), fs, torch.tensor([[0.25]]).double())
    power = torch.fft.rfft(sound[0]).abs().square()[:-1]  # a harmonic at half the rate is counted otherwise
    harmonics = power[160::160]
    assert harmonics.max() / harmonics.min() < 1.01 and harmonics.sum() > 0.99 * power.sum()
    assert float(sound.square().mean()) == pytest.approx(1.0, rel=0.02)
    assert float(periods[0, -1]) == pytest.approx(0.25 + hertz)
    highest = sound[0].argmax()  # a pulse where the phase is a whole number
    assert abs(float(periods[0, highest]) - round(float(periods[0, highest]))) < 0.02


def test_frames_are_interpolated_to_samples() -> None:
    values = torch.tensor([[0.0, 4.0, 2.0]], dtype=torch.float64)
    assert at_samples(values, 4).tolist() == [[0, 1, 2, 3, 4, 3.5, 3, 2.5, 2, 2, 2, 2]]


def test_the_envelope_rings_after_a_pulse_only() -> None:
    settings = feature_settings("fbank", CONF)
    analysis = FeatureAnalysis(settings)
    _, _, feats = spoken.features("fbank", **CONF)
    feats = torch.from_numpy(feats[10:11]).expand(16, -1)[None]  # a vowel that lasts
    layout, click = analysis.layout([16]), torch.zeros(1, 16 * 256)
    click[0, 2048] = 1.0
    answer = shaped(analysis, analysis.spectrum(click, layout), feats, layout)[0]
    before, after = answer[:2046].square().sum(), answer[2046:].square().sum()
    assert before < 0.03 * after
    # White noise gets the level that the features tell.
    noise = torch.randn(1, 16 * 256, generator=torch.Generator().manual_seed(0))
    sound = shaped(analysis, analysis.spectrum(noise, layout), feats, layout)
    error = (analysis.log_mel(analysis.spectrum(sound, layout)) - analysis.target(feats))[0, 4:12].mean(dim=0)
    assert abs(float(error.mean())) < 0.3 and float(error.abs().max()) < 1.5
