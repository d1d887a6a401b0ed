"""Each figure against an independent computation."""

from __future__ import annotations

import math
import statistics

import librosa
import numpy as np
import pytest

from flowavenet_plugin.evaluation.metrics import frame_length, log_spectral_distance, summarise


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=samples).astype(np.float32)


def distance_by_loops(a: np.ndarray, b: np.ndarray, n_fft: int) -> float:
    """The docstring's formula with librosa's STFT and plain loops."""
    powers = [
        np.abs(librosa.stft(x.astype(np.float64), n_fft=n_fft, hop_length=n_fft // 4, window="hann", center=False)) ** 2
        for x in (a, b)
    ]
    floor = max(powers[0].max(), powers[1].max()) * 1e-8
    per_frame = []
    for frame in range(powers[0].shape[1]):
        squares = [
            (10 * math.log10(max(p, floor)) - 10 * math.log10(max(q, floor))) ** 2
            for p, q in zip(powers[0][:, frame], powers[1][:, frame], strict=True)
        ]
        per_frame.append(math.sqrt(statistics.fmean(squares)))
    return statistics.fmean(per_frame)


@pytest.mark.parametrize("gain", [0.5, 3.0, -1.0])
def test_a_gain_of_g_is_20_log10_g_db(gain: float) -> None:
    wav = noise(5000)
    assert log_spectral_distance(wav, np.float32(gain) * wav, 22050) == pytest.approx(
        abs(20 * math.log10(abs(gain))), abs=1e-4
    )


@pytest.mark.parametrize(("fs", "n_fft"), [(16000, 1024), (22050, 1024), (24000, 1024), (44100, 2048), (8000, 512)])
def test_distance_equals_the_formula(fs: int, n_fft: int) -> None:
    assert frame_length(fs) == n_fft
    reference, generated = noise(9000, seed=1), noise(9000, seed=2)
    # a band that one of them lacks, and a pause: both touch the floor
    generated[3000:6000] = 0.0
    reference = np.convolve(reference, np.ones(8) / 8, mode="same").astype(np.float32)
    expected = distance_by_loops(reference, generated, n_fft)
    assert log_spectral_distance(reference, generated, fs) == pytest.approx(expected, rel=1e-6)
    assert expected > 5


def test_distance_is_symmetric_and_ignores_a_common_scale() -> None:
    a, b = noise(4000, seed=1), noise(4000, seed=2)
    b[1000:3500] = 0.0
    distance = log_spectral_distance(a, b, 22050)
    assert log_spectral_distance(b, a, 22050) == pytest.approx(distance, rel=1e-12)
    assert log_spectral_distance(0.25 * a, 0.25 * b, 22050) == pytest.approx(distance, rel=1e-6)


def test_distance_stays_between_0_and_the_dynamic_range() -> None:
    """A unit impulse has the same power in every bin, so silence beside it is 80 dB away in each."""
    impulse = np.zeros(1024, dtype=np.float32)
    impulse[512] = 1.0
    silence = np.zeros_like(impulse)
    assert log_spectral_distance(impulse, impulse, 22050) == 0.0
    assert log_spectral_distance(silence, silence, 22050) == 0.0
    assert log_spectral_distance(impulse, silence, 22050) == pytest.approx(80.0, abs=1e-9)


def test_a_signal_shorter_than_a_frame_is_padded() -> None:
    wav = noise(100)
    padded = np.pad(wav, (0, 924))
    other = noise(100, seed=1)
    expected = log_spectral_distance(padded, np.pad(other, (0, 924)), 22050)
    assert log_spectral_distance(wav, other, 22050) == pytest.approx(expected)


def test_a_longer_signal_is_cut_within_the_tolerance_only() -> None:
    wav = noise(5000)
    longer = np.concatenate([wav, noise(256, seed=1)])
    assert log_spectral_distance(wav, longer, 22050, max_length_difference=256) == 0.0
    assert log_spectral_distance(longer, wav, 22050, max_length_difference=256) == 0.0
    with pytest.raises(ValueError, match="5000 samples.* 5256; .*at most 255"):
        log_spectral_distance(wav, longer, 22050, max_length_difference=255)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            np.full(2000, np.nan, dtype=np.float32),
            "generated audio has 2000 samples of 2000 that aren't finite, first at 0",
        ),
        (np.array([0.0, 0.1, np.inf], dtype=np.float32), "1 samples of 3 that aren't finite, first at 2"),
        (np.zeros(0, dtype=np.float32), r"generated audio has shape \(0,\)"),
        (np.zeros((5, 2), dtype=np.float32), r"generated audio has shape \(5, 2\)"),
    ],
)
def test_bad_audio_is_refused(bad: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_spectral_distance(noise(2000), bad, 22050)


def test_summary_is_students_interval() -> None:
    """The quantile of 4 degrees of freedom is from a printed table: 2.776."""
    values = [4.1, 4.4, 3.9, 4.6, 4.0]
    summary = summarise(values)
    assert summary.mean == pytest.approx(statistics.fmean(values), rel=1e-12)
    assert summary.half_width == pytest.approx(2.776 * statistics.stdev(values) / math.sqrt(5), rel=2e-4)
    assert summary.count == 5
    assert str(summary) == "4.200 ± 0.362"


def test_summary_covers_the_true_mean_in_95_of_100_cases() -> None:
    """A simulation that knows no formula; three standard errors of the share are 1.5 points."""
    samples = np.random.default_rng(0).normal(loc=2.0, scale=3.0, size=(2000, 6))
    summaries = [summarise(row) for row in samples]
    share = np.mean([abs(summary.mean - 2.0) <= summary.half_width for summary in summaries])
    assert share == pytest.approx(0.95, abs=0.015)


def test_summary_of_one_value_has_no_interval() -> None:
    summary = summarise([2.5])
    assert (summary.mean, summary.count, str(summary)) == (2.5, 1, "2.500")
    assert math.isnan(summary.half_width)


@pytest.mark.parametrize(("values", "message"), [([], "no values"), ([1.0, math.nan], "value 1 of 2 is nan")])
def test_summary_refuses(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarise(values)
