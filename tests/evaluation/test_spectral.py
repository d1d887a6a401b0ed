"""Spectral distances against torch's STFT, torchaudio's mel filters and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio

from flowavenet_plugin.evaluation.spectral import RESOLUTIONS, log_mel_distance, multi_resolution_stft_distance


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=samples).astype(np.float32)


def magnitude(wav: np.ndarray, n_fft: int, hop: int, window: int) -> np.ndarray:
    """Torch's spectrum in float64, (bins, frames)."""
    hann = torch.hann_window(window, dtype=torch.float64)
    tensor = torch.from_numpy(wav.astype(np.float64))
    return (
        torch.stft(tensor, n_fft, hop, window, hann, center=True, pad_mode="reflect", return_complex=True).abs().numpy()
    )


def test_multi_resolution_distance_equals_the_formula_on_torchs_spectra() -> None:
    reference, generated = noise(6000, seed=1), 0.5 * noise(6000, seed=2)
    terms = []
    for sizes in RESOLUTIONS:
        a, b = magnitude(reference, *sizes), magnitude(generated, *sizes)
        convergence = np.sqrt(((a - b) ** 2).sum() / (a**2).sum())
        terms.append(convergence + np.abs(np.log(a / b)).mean())
    assert multi_resolution_stft_distance(reference, generated) == pytest.approx(np.mean(terms), rel=1e-3)


def test_multi_resolution_distance_of_a_gain_is_known() -> None:
    """Half the amplitude: convergence 1/2, and ln 2 for the logarithms."""
    wav = noise(5000)
    assert multi_resolution_stft_distance(wav, 0.5 * wav) == pytest.approx(0.5 + np.log(2.0), abs=1e-4)
    assert multi_resolution_stft_distance(wav, wav) == 0.0


@pytest.mark.parametrize(("fs", "n_fft", "top"), [(22050, 1024, 7600), (24000, 1024, 7600), (8000, 512, 4000)])
def test_log_mel_distance_equals_loops_over_torchs_spectra(fs: int, n_fft: int, top: float) -> None:
    reference, generated = noise(4000, seed=1), noise(4000, seed=2)
    generated[1000:3000] = 0.0  # touches the floor
    bins = n_fft // 2 + 1
    filters = torchaudio.functional.melscale_fbanks(bins, 80, top, 80, fs, norm="slaney", mel_scale="slaney").T.numpy()
    mels = [filters @ magnitude(wav, n_fft, n_fft // 4, n_fft) for wav in (reference, generated)]
    differences = [
        abs(20 * np.log10(max(a, 1e-5)) - 20 * np.log10(max(b, 1e-5)))
        for a, b in zip(mels[0].ravel(), mels[1].ravel(), strict=True)
    ]
    assert log_mel_distance(reference, generated, fs) == pytest.approx(np.mean(differences), rel=1e-3)


def test_log_mel_distance_of_a_gain_is_the_gain_in_db() -> None:
    wav = noise(5000)
    assert log_mel_distance(wav, 0.1 * wav, 22050) == pytest.approx(20.0, abs=1e-3)


def test_audio_shorter_than_a_window_is_padded() -> None:
    wav = noise(50)
    assert multi_resolution_stft_distance(wav, wav) == 0.0
    assert log_mel_distance(wav, 0.1 * wav, 22050) == pytest.approx(20.0 * 3 / 5)  # 3 of 5 frames see it


def test_other_lengths_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="100 samples, the generated audio 99"):
        multi_resolution_stft_distance(noise(100), noise(99))
    with pytest.raises(ValueError, match="100 samples, the generated audio 99"):
        log_mel_distance(noise(100), noise(99), 22050)
