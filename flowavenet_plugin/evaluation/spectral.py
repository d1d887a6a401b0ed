"""Distances between spectra at several resolutions, and between log-mel-spectrograms. docs/scoring.md defines them."""

from __future__ import annotations

import librosa
import numpy as np

from flowavenet_plugin.evaluation.metrics import frame_length

#: n_fft, hop and window length in samples, as in Parallel WaveGAN's multi-resolution STFT loss.
RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
#: Least magnitude that counts; log of less would rule the mean.
MAGNITUDE_FLOOR = 1e-5
MEL_FLOOR = 1e-5
N_MELS = 80
MEL_RANGE = (80.0, 7600.0)


def multi_resolution_stft_distance(reference: np.ndarray, generated: np.ndarray) -> float:
    """Compare magnitude spectra S at three resolutions.

    At each, ``|S_ref - S_gen|_F / |S_ref|_F`` (spectral convergence) plus the mean of ``|ln S_ref - ln S_gen|``
    (natural log); the result is the mean over the resolutions. Hann windows, centred frames, the ends reflected.

    Args:
        reference: Natural speech, shape (samples,).
        generated: Synthesised speech of the same length.

    Returns:
        Distance from 0 (equal), without unit.

    Raises:
        ValueError: If the lengths differ.
    """
    _check_lengths(reference, generated)
    return float(np.mean([_one_resolution(reference, generated, *sizes) for sizes in RESOLUTIONS]))


def _one_resolution(reference: np.ndarray, generated: np.ndarray, n_fft: int, hop: int, window: int) -> float:
    natural, other = (
        np.maximum(np.abs(_stft(wav, n_fft, hop, window)), MAGNITUDE_FLOOR) for wav in (reference, generated)
    )
    convergence = np.linalg.norm(natural - other) / np.linalg.norm(natural)
    return float(convergence + np.mean(np.abs(np.log(natural) - np.log(other))))


def log_mel_distance(reference: np.ndarray, generated: np.ndarray, fs: int) -> float:
    """Compare log-mel-spectrograms.

    80 Slaney bands of amplitude from 80 to 7600 Hz (or fs / 2), n_fft 1024 at 22,050 Hz (the power of two of at least
    40 ms), hop n_fft / 4, floor 1e-5; the mean over bands and frames of ``|20 log10 M_ref - 20 log10 M_gen|``.

    Args:
        reference: Natural speech, shape (samples,).
        generated: Synthesised speech of the same length.
        fs: Sampling rate in Hz.

    Returns:
        Distance in dB.

    Raises:
        ValueError: If the lengths differ.
    """
    _check_lengths(reference, generated)
    natural, other = (_mel_decibels(wav, fs) for wav in (reference, generated))
    return float(np.mean(np.abs(natural - other)))


def _mel_decibels(wav: np.ndarray, fs: int) -> np.ndarray:
    """20 log10 of mel amplitudes, shape (80, frames)."""
    n_fft = frame_length(fs)
    low, high = MEL_RANGE
    filters = librosa.filters.mel(sr=fs, n_fft=n_fft, n_mels=N_MELS, fmin=low, fmax=min(high, fs / 2))
    mel = filters @ np.abs(_stft(wav, n_fft, n_fft // 4, n_fft))
    return 20.0 * np.log10(np.maximum(mel, MEL_FLOOR))


def _stft(wav: np.ndarray, n_fft: int, hop: int, window: int) -> np.ndarray:
    """Complex spectrum, shape (n_fft / 2 + 1, frames); audio shorter than n_fft is padded with zeros."""
    wav = np.pad(wav, (0, max(n_fft - len(wav), 0)))
    return librosa.stft(wav, n_fft=n_fft, hop_length=hop, win_length=window, window="hann", pad_mode="reflect")


def _check_lengths(reference: np.ndarray, generated: np.ndarray) -> None:
    if len(reference) != len(generated):
        raise ValueError(f"the reference has {len(reference)} samples, the generated audio {len(generated)}")
