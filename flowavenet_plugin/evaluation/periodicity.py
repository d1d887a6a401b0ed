"""How periodic each frame is: the highest normalised cross-correlation over the lags of a voice."""

from __future__ import annotations

import numpy as np

#: Range of the fundamental frequency that is looked for, in Hz.
F0_RANGE = (71.0, 600.0)
FRAME_SECONDS = 0.005
#: Frames of natural speech more than this far below its loudest frame are pauses, in dB.
ACTIVE_RANGE = 50.0


def frame_starts(samples: int, fs: int) -> np.ndarray:
    """Sample at the middle of each 5 ms frame; as many frames as WORLD has: int(samples / fs / 0.005) + 1."""
    frames = int(1000.0 * samples / fs / (1000.0 * FRAME_SECONDS)) + 1
    return np.round(np.arange(frames) * FRAME_SECONDS * fs).astype(int)


def active_frames(wav: np.ndarray, fs: int) -> np.ndarray:
    """Which 5 ms frames hold speech: root mean square over 25 ms within 50 dB of the loudest frame's.

    Args:
        wav: Natural speech, shape (samples,).
        fs: Sampling rate in Hz.

    Returns:
        Truth values, shape (frames,); none is true in silence.
    """
    power = np.mean(_windows(wav, frame_starts(len(wav), fs), round(0.025 * fs)) ** 2, axis=1)
    return (power > 0.0) & (power >= power.max() * 10.0 ** (-ACTIVE_RANGE / 10.0))


def periodicity(wav: np.ndarray, fs: int) -> np.ndarray:
    """Periodicity of each 5 ms frame.

    With T = fs / 71 Hz samples, the longest period: x are 2 T samples and y_k as many, k later; together they lie about
    the middle of the frame. The value is the largest ``<x, y_k> / sqrt(<x, x> <y_k, y_k>)`` over k = fs / 600 Hz ... T,
    or 0 if that's negative; energies below -100 dB of full scale count as that.

    Args:
        wav: Waveform, shape (samples,).
        fs: Sampling rate in Hz.

    Returns:
        From 0 (noise) to 1 (periodic), shape (frames,).
    """
    longest, shortest = (int(fs / hz) for hz in F0_RANGE)
    length = 2 * longest
    windows = _windows(wav, frame_starts(len(wav), fs), length + longest)  # (frames, 3 T)
    size = 2 ** int(np.ceil(np.log2(windows.shape[1] + length)))
    spectrum = np.conj(np.fft.rfft(windows[:, :length], size)) * np.fft.rfft(windows, size)
    products = np.fft.irfft(spectrum, size)[:, shortest : longest + 1]  # (frames, lags)
    sums = np.pad(np.cumsum(windows**2, axis=1), ((0, 0), (1, 0)))
    lags = np.arange(shortest, longest + 1)
    floor = length * 1e-10
    energies = np.maximum(sums[:, lags + length] - sums[:, lags], floor)
    own = np.maximum(sums[:, length : length + 1], floor)
    return np.clip((products / np.sqrt(own * energies)).max(axis=1), 0.0, 1.0)


def _windows(wav: np.ndarray, middles: np.ndarray, length: int) -> np.ndarray:
    """Samples about each middle, zeros beyond the ends, float64, shape (frames, length)."""
    padded = np.pad(wav.astype(np.float64), (length // 2, length))
    return np.lib.stride_tricks.sliding_window_view(padded, length)[middles]
