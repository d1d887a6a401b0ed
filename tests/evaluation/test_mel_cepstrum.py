"""Mel-cepstra against an integral over the warped frequency axis, and against SPTK where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from flowavenet_plugin.evaluation.mel_cepstrum import mel_cepstral_distortion, mel_cepstrum, settings, warping


def smooth_power(bins: int = 513) -> np.ndarray:
    """The power spectrum of a smooth envelope with two formants, (1, bins)."""
    omega = np.linspace(0, np.pi, bins)
    log_magnitude = 2.0 * np.cos(omega) + 0.7 * np.cos(3 * omega) - 0.3 * np.cos(5 * omega) + 0.2
    return np.exp(2.0 * log_magnitude)[None]


@pytest.mark.parametrize("alpha", [0.0, 0.31, 0.45, 0.55])
def test_coefficients_equal_the_integral_over_the_warped_axis(alpha: float) -> None:
    """c_m = 2 / pi * the integral of ln magnitude * cos(m w') over w' = 0 ... pi; half of it for m = 0."""
    warped = (np.arange(20000) + 0.5) * np.pi / 20000
    # the all-pass maps w to w' = w + 2 atan(alpha sin w / (1 - alpha cos w)); its inverse has -alpha
    omega = warped + 2 * np.arctan(-alpha * np.sin(warped) / (1 + alpha * np.cos(warped)))
    log_magnitude = 2.0 * np.cos(omega) + 0.7 * np.cos(3 * omega) - 0.3 * np.cos(5 * omega) + 0.2
    expected = [2.0 * np.mean(log_magnitude * np.cos(m * warped)) for m in range(25)]
    expected[0] /= 2.0
    np.testing.assert_allclose(mel_cepstrum(smooth_power(), 24, alpha)[0], expected, atol=1e-8)


def test_coefficients_equal_sptks() -> None:
    pysptk = pytest.importorskip("pysptk", reason="pysptk isn't installed; the integral is checked without it")
    power = np.exp(np.random.default_rng(0).normal(size=(3, 513)))
    np.testing.assert_allclose(mel_cepstrum(power, 34, 0.45), pysptk.sp2mc(power, 34, 0.45), atol=1e-10)


def test_without_a_warp_the_matrix_is_the_identity() -> None:
    np.testing.assert_array_equal(warping(5, 9, 0.0), np.eye(6, 9))


def test_distortion_equals_the_formula_and_ignores_energy() -> None:
    reference = np.array([[1.0, 0.0, 0.0], [5.0, 1.0, 1.0]])
    generated = np.array([[9.0, 3.0, 4.0], [5.0, 1.0, 1.0]])
    expected = 10 / np.log(10) * np.sqrt(2 * 25) / 2  # the first frame's, and 0 of the second
    assert mel_cepstral_distortion(reference, generated) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(mel_cepstral_distortion(reference[:0], generated[:0]))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\)"):
        mel_cepstral_distortion(reference, generated[:1])


@pytest.mark.parametrize(("fs", "expected"), [(22050, (34, 0.45)), (16000, (23, 0.42)), (22000, (34, 0.45))])
def test_settings_are_those_of_the_nearest_rate(fs: int, expected: tuple[int, float]) -> None:
    assert settings(fs) == expected
