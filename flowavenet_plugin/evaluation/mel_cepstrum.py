"""Mel-cepstra of spectral envelopes, and the distortion between two of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

#: Sampling rate in Hz -> order and all-pass constant of the mel-cepstrum, as in ESPnet's evaluation scripts.
_SETTINGS = {8000: (13, 0.31), 16000: (23, 0.42), 22050: (34, 0.45), 24000: (34, 0.46), 44100: (39, 0.53)}
_SETTINGS[48000] = (39, 0.55)


def settings(fs: int) -> tuple[int, float]:
    """Return order and all-pass constant for a sampling rate: those of the nearest one in ESPnet's list."""
    return _SETTINGS[min(_SETTINGS, key=lambda known: abs(known - fs))]


@lru_cache(maxsize=8)
def warping(order: int, length: int, alpha: float) -> np.ndarray:
    """Matrix that turns a cepstrum into one of a warped frequency axis.

    The warp is that of the all-pass ``(z^-1 - alpha) / (1 - alpha z^-1)``.

    Args:
        order: Highest coefficient wanted.
        length: Coefficients of the cepstrum.
        alpha: All-pass constant, -1 to 1 exclusive; 0 is no warp.

    Returns:
        Shape (order + 1, length), float64.
    """
    matrix = np.zeros((order + 1, length))
    matrix[0] = alpha ** np.arange(length)
    for row in range(1, order + 1):
        for column in range(1, length):
            inner = matrix[row, column - 1] - matrix[row - 1, column]
            matrix[row, column] = matrix[row - 1, column - 1] + alpha * inner
    matrix.setflags(write=False)  # the cache's
    return matrix


def mel_cepstrum(power: np.ndarray, order: int, alpha: float) -> np.ndarray:
    """Mel-cepstrum of a power spectrum, as a minimum-phase filter has it.

    Args:
        power: Power envelope, positive, shape (frames, bins).
        order: Highest coefficient.
        alpha: All-pass constant.

    Returns:
        Coefficients 0 ... order of ln magnitude, shape (frames, order + 1).
    """
    cepstrum = np.fft.irfft(np.log(power), axis=1)[:, : power.shape[1]]
    cepstrum[:, 0] *= 0.5
    return cepstrum @ warping(order, power.shape[1], alpha).T


def mel_cepstral_distortion(reference: np.ndarray, generated: np.ndarray) -> float:
    """Mean over frames of ``10 / ln 10 * sqrt(2 * sum over d >= 1 of (c_ref[d] - c_gen[d])^2)``.

    Coefficient 0, the energy, doesn't count.

    Args:
        reference: Mel-cepstra of natural speech, shape (frames, order + 1).
        generated: Those of synthesised speech, same shape.

    Returns:
        Distortion in dB; NaN without frames.

    Raises:
        ValueError: If the shapes differ.
    """
    if reference.shape != generated.shape:
        raise ValueError(f"mel-cepstra of shapes {reference.shape} and {generated.shape}; equal ones are wanted")
    if not len(reference):
        return float("nan")
    squares = np.sum((reference[:, 1:] - generated[:, 1:]) ** 2, axis=1)
    return float(np.mean(10.0 / np.log(10.0) * np.sqrt(2.0 * squares)))
